"""The descriptive fit of loss by position: a + b (t + 1)^−α."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import OptimizeWarning, curve_fit

from lossprobe.analysis.clusters import t_quantile

MIN_BINS = 6
ALPHA_RANGE = (0.01, 8.0)


@dataclass(frozen=True)
class PowerLaw:
    """loss(t) = a + b (t + 1)^−α, t tokens of context (Kaplan et al. 2020 fit such curves within a context).

    Attributes:
        a_nats: level that the curve approaches, with its 95 % interval `a_interval`.
        b_nats: height above it at t = 0, with `b_interval`.
        alpha: exponent, with `alpha_interval`.
        residual_runs: runs of residuals of one sign along t; far fewer than `residual_runs_expected` means that the
            curve has another shape than a power law.
        residual_runs_expected: number of runs expected of independent residuals (Wald & Wolfowitz 1940).
    """

    a_nats: float
    a_interval: list[float]
    b_nats: float
    b_interval: list[float]
    alpha: float
    alpha_interval: list[float]
    residual_runs: int
    residual_runs_expected: float

    def at(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the fitted loss in nats at positions t."""
        return curve(position, self.a_nats, self.b_nats, self.alpha)


def curve(t: npt.NDArray[np.float64], a: float, b: float, alpha: float) -> npt.NDArray[np.float64]:
    """Return a + b (t + 1)^−α."""
    return a + b * (t + 1.0) ** -alpha


def fit_power_law(bins: pd.DataFrame) -> PowerLaw | None:
    """Return the least-squares fit weighted by each bin's cluster interval, or None where it does not settle.

    Args:
        bins: rows with `position` (mean t), `mean_loss_nats`, `low`, `high`, `clusters`; t = 0 is left out.
    """
    usable = bins[(bins["position"] > 0) & (bins["high"] > bins["low"]) & (bins["clusters"] > 2)]
    if len(usable) < MIN_BINS:
        return None
    t = usable["position"].to_numpy(float)
    loss = usable["mean_loss_nats"].to_numpy(float)
    quantile = np.array([t_quantile(int(count)) for count in usable["clusters"]])
    error = (usable["high"] - usable["low"]).to_numpy(float) / 2.0 / quantile
    start = (float(loss[-1]), float(loss[0] - loss[-1]), 0.5)
    bounds = ((-np.inf, -np.inf, ALPHA_RANGE[0]), (np.inf, np.inf, ALPHA_RANGE[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)
            best, covariance = curve_fit(curve, t, loss, p0=start, sigma=error, absolute_sigma=True, bounds=bounds)
    except (RuntimeError, ValueError, OptimizeWarning):
        return None
    spread = t_quantile(len(usable) - len(best) + 1) * np.sqrt(np.diag(covariance))
    if not np.isfinite(spread).all() or min(abs(best[2] - edge) for edge in ALPHA_RANGE) < 1e-6:
        return None
    (a, b, alpha), ends = best, [[float(v - s), float(v + s)] for v, s in zip(best, spread, strict=True)]
    runs, expected = sign_runs(loss - curve(t, *best))
    return PowerLaw(float(a), ends[0], float(b), ends[1], float(alpha), ends[2], runs, expected)


def sign_runs(residuals: npt.NDArray[np.float64]) -> tuple[int, float]:
    """Return the number of sign runs, and the number expected of independent residuals.

    >>> sign_runs(np.array([1.0, 2.0, -1.0, 1.0]))
    (3, 2.5)
    """
    positive = residuals > 0
    above, below = int(positive.sum()), int((~positive).sum())
    runs = 1 + int((positive[1:] != positive[:-1]).sum())
    return runs, 1.0 + 2.0 * above * below / (above + below)
