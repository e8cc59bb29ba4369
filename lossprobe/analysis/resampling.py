"""Intervals of statistics that are no plain means: a seeded bootstrap of whole clusters.

A statistic is a function of sums per cluster, so resampling needs those sums only, never the tokens. With θ* the
statistic of a resample, the interval is the bias-corrected normal one with Student's t for few clusters
(Efron & Tibshirani 1993, ch. 10 and 12):

    (2 θ − mean θ*) ± t(G − 1) · sd(θ*) · √(G / (G − 1))

The correction matters for calibration errors: they are means of absolute values, so noise only adds to them, and
the resamples show how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.clusters import Clusters, Interval, t_quantile

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

RESAMPLES = 1000
SEED = 0
MAX_CLUSTERS = 1000
CHUNK = 1 << 22  # resampled numbers held at once


@dataclass(frozen=True)
class Measure:
    """One number with what a reader needs beside it; None where it cannot be given.

    Attributes:
        value: the number.
        low, high: its 95 % interval.
        noise_floor: what the number is expected to be for a perfectly calibrated model on this many tokens.
        z: distance from perfect calibration in standard errors; standard normal under calibration.
        design_effect: variance of the mean over clusters, divided by that of independent tokens.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    noise_floor: float | None = None
    z: float | None = None
    design_effect: float | None = None


def at_most(clusters: Clusters, limit: int = MAX_CLUSTERS) -> Clusters:
    """Return clusters merged into at most `limit` groups, which bounds the memory of resampling and changes no mean."""
    if clusters.count <= limit:
        return clusters
    return Clusters(clusters.unit, limit, f"(({clusters.sql}) % {limit})", clusters.note)


def bootstrap(
    sums: Floats, statistic: Statistic, low: float = -math.inf, high: float = math.inf, seed: int = SEED
) -> Interval:
    """Return a statistic of the total with its bootstrap interval over clusters.

    Args:
        sums: float64 [G, ...], sums of every cluster.
        statistic: maps sums [..., *shape] to [...]; called with the total and with resampled totals.
        low: least that the statistic can be; the interval is cut there.
        high: most that it can be.
        seed: of the resamples.

    Returns:
        the estimate, and the interval (None with fewer than two clusters).
    """
    count = len(sums)
    estimate = float(statistic(sums.sum(axis=0)))
    if count < 2:
        return Interval(estimate, None, None)
    replicates = resample(sums, statistic, seed)
    centre = 2 * estimate - float(replicates.mean())
    half = float(t_quantile(count)) * float(replicates.std(ddof=1)) * math.sqrt(count / (count - 1))
    return Interval(estimate, *(float(np.clip(end, low, high)) for end in (centre - half, centre + half)))


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
