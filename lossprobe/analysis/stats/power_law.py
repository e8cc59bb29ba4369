"""The descriptive fit of loss by position: a + b (t + 1)^−α."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeWarning, curve_fit

from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import errors_of_replicates, t_quantile
from lossprobe.analysis.stats.lack_of_fit import shape_p
from lossprobe.analysis.stats.resampling import Floats

FOLDS = 20
LEVEL = 0.01  # share of true power laws that are called another curve
MIN_BINS = 6
MIN_FOLDS = 3
ALPHA_RANGE = (0.01, 8.0)

Parameters = tuple[float, float, float]


@dataclass(frozen=True)
class PowerLaw:
    """loss(t) = a + b (t + 1)^−α, t tokens of context (Kaplan et al. 2020 fit such curves within a context).

    The 95 % intervals are those of a delete-a-group jackknife over at most 20 groups of documents (or blocks), t with
    groups − 1 degrees of freedom: the losses at two positions of one document are not independent.

    Attributes:
        a_nats: level that the curve approaches, with its interval `a_nats_interval`.
        b_nats: height above it at t = 0, with `b_nats_interval`.
        alpha: exponent, with `alpha_interval`.
        residual_runs: runs of residuals of one sign along t; far fewer than `residual_runs_expected` means that the
            curve has another shape than a power law.
        residual_runs_expected: number of runs expected of independent residuals (Wald & Wolfowitz 1940).
        residual_runs_p: chance of so few runs among independent residuals.
        residual_shape_p: chance of residuals so far from 0 along smooth waves; see `lack_of_fit`. 1 with fewer than 4
            groups.
        clearest_residual_nats, clearest_residual_position: mean loss minus the curve where it is largest in standard
            errors, and the position t there.
    """

    a_nats: float
    a_nats_interval: Interval
    b_nats: float
    b_nats_interval: Interval
    alpha: float
    alpha_interval: Interval
    residual_runs: int
    residual_runs_expected: float
    residual_runs_p: float
    residual_shape_p: float
    clearest_residual_nats: float
    clearest_residual_position: float

    @property
    def misfit_p(self) -> float:
        """Chance of residuals as unlikely as these, by runs or by shape, if the curve is right (Bonferroni)."""
        return min(1.0, 2.0 * min(self.residual_runs_p, self.residual_shape_p))

    @property
    def misses(self) -> bool:
        """Whether the curve has another shape: residuals as unlikely as these come in under 1 % of power laws."""
        return self.misfit_p < LEVEL

    def at(self, position: Floats) -> Floats:
        """Return the fitted loss in nats at positions t."""
        return curve(position, self.a_nats, self.b_nats, self.alpha)


@dataclass(frozen=True)
class FoldSums:
    """Sums over the scored tokens of each bin of positions (rows) and each group of clusters (columns), all [K, R].

    Attributes:
        tokens: how many.
        nats: their losses.
        positions: their positions t.
    """

    tokens: Floats
    nats: Floats
    positions: Floats

    def take(self, bins: npt.NDArray[np.bool_]) -> FoldSums:
        """Return the bins that an index selects."""
        return FoldSums(self.tokens[bins], self.nats[bins], self.positions[bins])


def curve(t: Floats, a: float, b: float, alpha: float) -> Floats:
    """Return a + b (t + 1)^−α."""
    return np.asarray(a + b * (t + 1.0) ** -alpha)


def tangents(t: Floats, b: float, alpha: float) -> Floats:
    """Return float64 [K, 3], the derivatives of `curve` by a, b and α at positions t [K]."""
    power = (t + 1.0) ** -alpha
    return np.stack([np.ones_like(t), power, -b * power * np.log(t + 1.0)], axis=-1)


def fit_power_law(sums: FoldSums) -> PowerLaw | None:
    """Return the least-squares fit to the bins' means, or None where it does not settle.

    A bin weighs by the jackknife error of its mean. Bins at t = 0, or found in fewer than three groups, are left out.
    """
    reached = (sums.tokens > 0).sum(axis=1) >= MIN_FOLDS
    sums = sums.take(reached & (sums.positions.sum(axis=1) > 0))
    t, loss = _means(sums.positions, sums.tokens), _means(sums.nats, sums.tokens)
    without_t, without_loss = (_means_without(part, sums.tokens) for part in (sums.positions, sums.nats))
    error = errors_of_replicates(without_loss)
    certain = error > 0
    if certain.sum() < MIN_BINS:
        return None
    t, loss, error = t[certain], loss[certain], error[certain]
    without_t, without_loss = without_t[certain], without_loss[certain]
    best = _fit(t, loss, error, (float(loss[-1]), float(loss[0] - loss[-1]), 0.5))
    if best is None:
        return None
    replicates = [_fit(t_r, loss_r, error, best) for t_r, loss_r in zip(without_t.T, without_loss.T, strict=True)]
    settled = [replicate for replicate in replicates if replicate is not None]
    if len(settled) < len(replicates):
        return None
    half = t_quantile(len(settled)) * errors_of_replicates(np.array(settled).T)
    a, b, alpha = best
    ends = [Interval(float(value - h), float(value + h)) for value, h in zip(best, half, strict=True)]
    residuals = loss - curve(t, *best)
    without = [loss_r - curve(t_r, *fit) for t_r, loss_r, fit in zip(without_t.T, without_loss.T, settled, strict=True)]
    clearest = int(np.abs(residuals / error).argmax())
    return PowerLaw(
        *(a, ends[0], b, ends[1], alpha, ends[2]),
        *sign_runs(residuals),
        few_runs_p(residuals),
        residual_shape_p=shape_p(residuals, np.array(without), error, tangents(t, b, alpha)),
        clearest_residual_nats=float(residuals[clearest]),
        clearest_residual_position=float(t[clearest]),
    )


def _means(sums: Floats, tokens: Floats) -> Floats:
    return np.asarray(sums.sum(axis=1) / tokens.sum(axis=1))


def _means_without(sums: Floats, tokens: Floats) -> Floats:
    """Return [K, R]: each bin's mean without each group."""
    return np.asarray((sums.sum(axis=1, keepdims=True) - sums) / (tokens.sum(axis=1, keepdims=True) - tokens))


def _fit(
    t: Floats, loss: Floats, error: Floats, start: tuple[float, float, float]
) -> tuple[float, float, float] | None:
    """Return a, b and α, or None where α runs to the end of its range or the search does not end."""
    bounds = ((-np.inf, -np.inf, ALPHA_RANGE[0]), (np.inf, np.inf, ALPHA_RANGE[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # about a covariance that is not used
            best, _ = curve_fit(curve, t, loss, p0=start, sigma=error, absolute_sigma=True, bounds=bounds)
    except (RuntimeError, ValueError):
        return None
    a, b, alpha = (float(value) for value in best)
    at_end = min(abs(alpha - end) for end in ALPHA_RANGE) < 1e-6
    return None if at_end or not np.isfinite(best).all() else (a, b, alpha)


def sign_runs(residuals: Floats) -> tuple[int, float]:
    """Return the number of sign runs, and the number expected of independent residuals.

    >>> sign_runs(np.array([1.0, 2.0, -1.0, 1.0]))
    (3, 2.5)
    """
    positive = residuals > 0
    above, below = int(positive.sum()), int((~positive).sum())
    runs = 1 + int((positive[1:] != positive[:-1]).sum())
    return runs, 1.0 + 2.0 * above * below / (above + below)


def few_runs_p(residuals: Floats) -> float:
    """Return the chance that independent residuals with as many of each sign come in at most as many sign runs.

    Of m positive and n negative ones in random order, C(m − 1, k − 1) C(n − 1, l − 1) of the C(m + n, m) orders have k
    runs of positive and l of negative ones, where k and l differ by at most 1; where k = l there are two of each kind
    (Wald & Wolfowitz 1940). Two of each sign come in 2, 3 or 4 runs in 2, 2 and 2 of 6 orders:

    >>> round(few_runs_p(np.array([1.0, 1.0, -1.0, -1.0])), 6), round(few_runs_p(np.array([1.0, -1.0, 1.0, -1.0])), 6)
    (0.333333, 1.0)
    """
    above, runs = int((residuals > 0).sum()), sign_runs(residuals)[0]
    below = len(residuals) - above
    if not above or not below:
        return 1.0
    orders = 0
    for count in range(2, runs + 1):
        more, fewer = (count + 1) // 2, count // 2
        ways = math.comb(above - 1, more - 1) * math.comb(below - 1, fewer - 1)
        ways += math.comb(above - 1, fewer - 1) * math.comb(below - 1, more - 1)
        orders += ways
    return orders / math.comb(above + below, above)
