"""Tests of differences: two-sided p-values of Student's t, and their adjustment where many are tested at once.

Holm's step-down rule (Holm 1979, Scandinavian Journal of Statistics 6, 65-70): whatever the dependence between the
groups, the chance that even one of the groups without a change is called significant is at most 5 %.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from lossprobe.analysis.stats.resampling import Floats

LEVEL = 0.05


def two_sided(mean: Floats, error: Floats, clusters: npt.ArrayLike) -> Floats:
    """Return p of no difference, [n]: 1 where mean and error are 0, NaN with fewer than two clusters.

    With 3 clusters a mean of 4.302653 standard errors is what 5 % of all samples exceed:

    >>> two_sided(np.array([4.302653, 0.0, 1.0]), np.array([1.0, 0.0, np.nan]), [3, 3, 1]).round(6).tolist()
    [0.05, 1.0, nan]
    """
    freedom = np.asarray(clusters, float) - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0.0, 0.0, np.abs(mean) / error)
    p: Floats = np.where(freedom > 0, 2.0 * stdtr(np.maximum(freedom, 1.0), -t), np.nan)
    return p


def holm(p_values: Floats) -> Floats:
    """Return p-values adjusted by Holm's rule over those that exist; NaN stays NaN.

    With p_(1) ≤ … ≤ p_(m) the adjusted ones are max over j ≤ i of min(1, (m − j + 1) p_(j)):

    >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values, kind="stable")[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts last
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(left * p_values[order]))
    return adjusted
