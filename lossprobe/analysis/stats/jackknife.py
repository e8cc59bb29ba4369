"""Intervals from the delete-one-cluster jackknife with Student's t, and what they resample.

Neighbouring tokens are correlated, so an interval that takes them as independent is far too narrow: whole clusters are
left out instead (Miller 1974; Efron & Tibshirani 1993, ch. 11). For the ratio θ = Σ s_c / Σ n_c over G clusters, with
θ_(c) the ratio without cluster c,

    SE² = (G − 1) / G · Σ_c (θ_(c) − mean θ_(·))²          interval: θ ± t(G − 1) · SE
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.interval import Estimate, Interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Clusters:
    """The clusters that the intervals of a run resample.

    Attributes:
        unit: "document" or "block".
        count: how many of them hold scored tokens.
        sql: expression over `tokens` that names a row's cluster.
        note: what a reader of the interval must know, or None.
    """

    unit: str
    count: int
    sql: str
    note: str | None


def jackknife_ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Estimate:
    """Return Σ numerator / Σ denominator with its delete-one jackknife-t interval, if there are two clusters.

    Args:
        numerator: [G] sums per cluster, such as losses in nats.
        denominator: [G] counts per cluster, such as tokens or bytes.

    For (1, 2, 6) over (1, 1, 2) the estimate is 9/4, the ratios without one cluster are 8/3, 7/3 and 3/2 with mean
    13/6, so SE² = 2/3 · 13/18 and the interval is 2.25 ± 4.302653 · 0.693889.

    >>> found = jackknife_ratio([1, 2, 6], [1, 1, 2])
    >>> round(found.value, 6), round(found.interval.high - found.value, 6)
    (2.25, 2.985562)
    """
    s, n = np.asarray(numerator, float), np.asarray(denominator, float)
    ratio = float(s.sum() / n.sum())
    without = n.sum() - n
    if len(s) < 2 or (without <= 0).any():
        return Estimate(ratio)
    return around(ratio, (s.sum() - s) / without)


def around(value: float, replicates: npt.NDArray[np.float64]) -> Estimate:
    """Return a number with the jackknife-t interval of its [G] delete-one replicates."""
    count = len(replicates)
    error = error_of_replicates(replicates)
    half = float(t_quantile(count)) * error
    return Estimate(value, Interval(value - half, value + half))


def error_of_replicates(replicates: npt.NDArray[np.float64]) -> float:
    """Return the standard error that [G] delete-one replicates show."""
    return float(errors_of_replicates(replicates))


def errors_of_replicates(replicates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard errors, float64 [...], that delete-one replicates [..., G] of several numbers show."""
    return np.asarray(np.sqrt((replicates.shape[-1] - 1) * replicates.var(axis=-1)))


def grouped_errors(
    numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64], starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the standard error of Σ numerator / Σ denominator in each of K groups of clusters, NaN of a single one.

    Args:
        numerator: float64 [G], sums of every cluster, those of a group side by side.
        denominator: float64 [G], their counts.
        starts: [K], where the groups start.

    Two groups, the first that of `jackknife_ratio`, the second a single cluster:

    >>> grouped_errors(np.array([1, 2, 6, 5.0]), np.array([1, 1, 2, 1.0]), np.array([0, 3])).round(6).tolist()
    [0.693889, nan]
    """
    clusters = np.diff([*starts, len(numerator)])
    group = np.repeat(np.arange(len(starts)), clusters)
    rest = np.add.reduceat(denominator, starts)[group] - denominator
    left = np.add.reduceat(numerator, starts)[group] - numerator
    replicates = np.divide(left, rest, out=np.full(len(rest), np.nan), where=rest > 0)
    centred = replicates - (np.add.reduceat(replicates, starts) / clusters)[group]
    errors: npt.NDArray[np.float64] = np.sqrt((clusters - 1) * np.add.reduceat(centred**2, starts) / clusters)
    return errors


def t_quantile(clusters: npt.ArrayLike, confidence: float = CONFIDENCE) -> npt.NDArray[np.float64]:
    """Return the two-sided quantile of Student's t with `clusters` − 1 degrees of freedom, NaN below two."""
    from scipy.special import stdtrit  # takes longer to import than a view of a small run to compute

    freedom = np.asarray(clusters, float) - 1.0
    return np.where(freedom > 0, stdtrit(np.maximum(freedom, 1.0), (1.0 + confidence) / 2.0), np.nan)
