"""Intervals of statistics that are no plain means: a seeded bootstrap of whole clusters.

A statistic is a function of sums per cluster, so resampling needs those sums only, never the tokens. With θ* the
statistic of a resample, the interval of a smooth one is the bias-corrected normal one with Student's t for few clusters
(Efron & Tibshirani 1993, ch. 10 and 12):

    (2 θ − mean θ*) ± t(G − 1) · s          s = the larger of the bootstrap's and the jackknife's standard error

A calibration error is a mean of absolute values: noise only adds to it, and near zero no correction by θ* is enough.
So its interval asks which true error would show what was seen. `bootstrap_error` shrinks or stretches all gaps by a
factor λ, adds the noise of the resamples, and has m(λ), what the error is then on average. Its ends are the true errors
at which m(λ) is t · s below and above θ; the lower one is 0 where noise alone gives as much.

`tests/simulations/calibration_truth.py` says how often these intervals hold a truth that is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import CONFIDENCE, Clusters, error_of_replicates, t_quantile

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

RESAMPLES = 1000
SEED = 0
MAX_CLUSTERS = 1000
CHUNK = 1 << 22  # resampled numbers held at once
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)  # λ; between them m² is taken for a line in the true error²


@dataclass(frozen=True)
class Draws:
    """Options of resampling.

    Attributes:
        resamples: how many; each is looked at once for every λ, about five times.
        confidence: of the interval.
    """

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE


DRAWS = Draws()


@dataclass(frozen=True)
class CalibrationMeasure:
    """A measure of calibration, its interval and its noise floor; None for what cannot be given.

    Attributes:
        value: the number.
        interval: its 95 % interval.
        noise_floor: what the number is expected to be for a perfectly calibrated model on this many tokens.
        z: distance from perfect calibration in standard errors; standard normal under calibration.
        design_effect: variance of the mean over clusters, divided by that of independent tokens.
    """

    value: float | None
    interval: Interval = NO_INTERVAL
    noise_floor: float | None = None
    z: float | None = None
    design_effect: float | None = None


def at_most(clusters: Clusters, limit: int = MAX_CLUSTERS) -> Clusters:
    """Return clusters merged into at most `limit` groups, which bounds the memory of resampling and changes no mean."""
    if clusters.count <= limit:
        return clusters
    return Clusters(clusters.unit, limit, f"(({clusters.sql}) % {limit})", clusters.note)


def bootstrap(
    sums: Floats,
    statistic: Statistic,
    low: float = -math.inf,
    high: float = math.inf,
    seed: int = SEED,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return a statistic of the total with its bootstrap interval over clusters.

    Args:
        sums: float64 [G, ...], sums of every cluster.
        statistic: maps sums [..., *shape] to [...]; called with the total, with totals that lack one cluster, and with
            resampled totals.
        low: least that the statistic can be; the interval is cut there.
        high: most that it can be.
        seed: of the resamples.
        confidence: of the interval.

    Returns:
        the estimate, and the interval (None with fewer than two clusters, or where a total has no such statistic).
    """
    count = len(sums)
    estimate = float(statistic(sums.sum(axis=0)))
    if count < 2:
        return Estimate(estimate)
    replicates = resample(sums, statistic, seed)
    spread = replicates.std(ddof=1) * math.sqrt(count / (count - 1))
    error = float(np.maximum(jackknife_error(sums, statistic), spread))  # NaN where one is
    centre = 2 * estimate - float(replicates.mean())
    return _cut(estimate, centre, float(t_quantile(count, confidence)) * error, (low, high))


def bootstrap_error(
    sums: Floats, calibrated: Floats, tokens: Floats, statistic: Statistic, high: float, draws: Draws = DRAWS
) -> Estimate:
    """Return a calibration error of the total with its interval over clusters; see the top.

    Args:
        sums: float64 [G, ...], sums of every cluster.
        calibrated: float64 [G, ...], the same with outcomes that equal the predictions: gaps of zero.
        tokens: float64 [G].
        statistic: maps sums [..., *shape] to [...]; 0 for calibrated ones, and the same for sums and their multiples.
        high: most that it can be.
        draws: how many resamples, and how sure the interval is.

    Returns:
        the estimate, and the interval (None with fewer than two clusters, or where a total has no such statistic). As
        noise adds to the estimate, it may lie above the interval.
    """
    count, total, perfect = len(sums), sums.sum(axis=0), calibrated.sum(axis=0)
    estimate = float(statistic(total))
    if count < 2:
        return Estimate(estimate)
    noise = _noise(sums, tokens, draws.resamples)
    error = float(np.maximum(jackknife_error(sums, statistic), statistic(total + noise).std()))  # NaN where one is
    half = float(t_quantile(count, draws.confidence)) * error
    if not math.isfinite(half):
        return Estimate(estimate)
    true, shown = [], []
    for factor in FACTORS:
        gaps = perfect + factor * (total - perfect)
        true.append(float(statistic(gaps)))
        shown.append(float(statistic(gaps + noise).mean()))
        most = max(estimate, shown[0]) + half
        if shown[-1] >= most:
            break
    rising, squares = np.maximum.accumulate(shown) ** 2, np.square(true)
    lowest = math.sqrt(np.interp(max(0.0, estimate - half) ** 2, rising, squares))
    highest = math.sqrt(np.interp(most**2, rising, squares)) if rising[-1] >= most**2 else most
    return Estimate(estimate, Interval(min(lowest, high), min(highest, high)))


def jackknife_error(sums: Floats, statistic: Statistic) -> float:
    """Return the delete-one jackknife standard error of a statistic of sums [G, ...]; NaN where a total has none."""
    without = statistic(sums.sum(axis=0) - sums)
    return error_of_replicates(without)


def resample(sums: Floats, statistic: Statistic, seed: int = SEED) -> Floats:
    """Return a statistic of `RESAMPLES` resamples of G clusters drawn with replacement, the same for the same seed."""
    count = len(sums)
    generator = np.random.default_rng(seed)
    flat = sums.reshape(count, -1)
    at_once = max(1, CHUNK // (flat.shape[1] + count))
    replicates = []
    for start in range(0, RESAMPLES, at_once):
        drawn = generator.multinomial(count, np.full(count, 1 / count), size=min(at_once, RESAMPLES - start))
        replicates.append(statistic((drawn @ flat).reshape(-1, *sums.shape[1:])))
    return np.concatenate(replicates)


def _noise(sums: Floats, tokens: Floats, resamples: int) -> Floats:
    """Return float64 [resamples, ...], how far resampled totals, brought to as many tokens, are from the total.

    G − 1 of G clusters are drawn with replacement, which makes the variance that of the total (Rao & Wu 1988).
    """
    count = len(sums)
    drawn = np.random.default_rng(SEED).multinomial(count - 1, np.full(count, 1 / count), size=resamples)
    scale = tokens.sum() / (drawn @ tokens)
    totals = (drawn * scale[:, None]) @ sums.reshape(count, -1)
    return np.asarray(totals.reshape(-1, *sums.shape[1:]) - sums.sum(axis=0))


def _cut(estimate: float, centre: float, half: float, limits: tuple[float, float]) -> Estimate:
    """Return an estimate with the interval centre ± half within its limits, if that is a number."""
    if not math.isfinite(centre + half):
        return Estimate(estimate)
    low, high = (float(np.clip(end, *limits)) for end in (centre - half, centre + half))
    return Estimate(estimate, Interval(low, high))
