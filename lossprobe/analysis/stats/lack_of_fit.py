"""Tests whether what a fitted curve leaves over has a shape: a smooth one that the curve cannot follow.

Residuals of neighbouring bins are not independent where the same documents are in both, so that no χ² of them is one.
Their projections on a few smooth waves are estimated with the covariance that leaving out one group of documents after
the other shows, every time with a fit of its own, and Hotelling's T² says whether they are 0 (Anderson 2003, ch. 5):

    T² = vᵀ S⁻¹ v          (G − m) / (m (G − 1)) T²  is about F(m, G − m) for m waves and G groups

The waves are cos(k π u), k = 1, 2, 3, with u from 0 to 1 along the bins, without the part that a change of the curve's
parameters could follow. `tests/simulations/power_law_truth.py` says how often it is right.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import f

from lossprobe.analysis.stats.resampling import Floats

WAVES = 3
SPARE_GROUPS = 3  # more groups than waves, for their covariance


def shape_p(residuals: Floats, replicates: Floats, error: Floats, tangents: Floats) -> float:
    """Return the chance of residuals as far from 0 along smooth waves if the curve is right; 1 without enough groups.

    Args:
        residuals: float64 [K], of the bins in order.
        replicates: float64 [G, K], the same without one of the groups each.
        error: float64 [K], standard errors of the bins' means, which the fit weighs them by.
        tangents: float64 [K, P], derivatives of the curve by its parameters.
    """
    groups, bins = replicates.shape
    waves = min(WAVES, bins - tangents.shape[1], groups - SPARE_GROUPS)
    if waves < 1:
        return 1.0
    along = _waves(error, tangents, waves)
    shape, varied = residuals @ along, (replicates - replicates.mean(axis=0)) @ along
    covariance = (groups - 1) / groups * varied.T @ varied
    try:
        distance = float(shape @ np.linalg.solve(covariance, shape))
    except np.linalg.LinAlgError:
        return 1.0
    freedom = groups - waves
    return float(f.sf(distance * freedom / (waves * (groups - 1)), waves, freedom))


def _waves(error: Floats, tangents: Floats, count: int) -> Floats:
    """Return float64 [K, count], waves that are orthogonal to the tangents and to each other, in weights 1 / error²."""
    u = np.linspace(0.0, 1.0, len(error))
    cosines = np.cos(np.pi * u[:, None] * np.arange(1, count + 1))
    weighed = np.column_stack([tangents, cosines]) / error[:, None]
    orthogonal, _ = np.linalg.qr(weighed)
    return np.asarray(orthogonal[:, -count:] / error[:, None])
