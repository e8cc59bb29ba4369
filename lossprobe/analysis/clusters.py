"""What intervals resample: documents, or blocks of tokens in a single document; never single tokens.

Neighbouring tokens are correlated, so an interval that takes them as independent is far too narrow. The
interval here is the delete-one-cluster jackknife with Student's t (Miller 1974; Efron & Tibshirani 1993,
ch. 11): for the ratio θ = Σ s_c / Σ n_c over G clusters, with θ_(c) the ratio without cluster c,

    SE² = (G − 1) / G · Σ_c (θ_(c) − mean θ_(·))²          interval: θ ± t(G − 1) · SE
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from lossprobe.run.reader import Run
from lossprobe.units import format_count

CONFIDENCE = 0.95
BLOCK_TOKENS = 4096


@dataclass(frozen=True)
class Clusters:
    """What a run's intervals resample.

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


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; `low` and `high` are None where fewer than two clusters exist."""

    estimate: float
    low: float | None
    high: float | None


def find_clusters(run: Run) -> Clusters:
    """Return the clusters of a run: its documents, or in a single document contiguous blocks of tokens.

    A block has 4,096 tokens; the last one takes what is left over, so that none is shorter.
    """
    documents = int(run.scalar("SELECT count(*) FROM documents WHERE scored_tokens > 0"))
    if documents > 1:
        return Clusters("document", documents, "document", None)
    tokens = int(run.scalar("SELECT max(token) + 1 FROM tokens WHERE unscored IS NULL"))
    sql = f"least(token // {BLOCK_TOKENS}, {max(0, tokens // BLOCK_TOKENS - 1)})"
    blocks = int(run.scalar(f"SELECT count(DISTINCT {sql}) FROM tokens WHERE unscored IS NULL"))
    if blocks > 1:
        note = (
            f"one document: intervals resample {blocks} blocks of {format_count(BLOCK_TOKENS)} tokens "
            "and are a lower bound; give documents (a folder, a JSONL, --split-documents) for better ones"
        )
    else:
        note = f"one document of fewer than {format_count(2 * BLOCK_TOKENS)} tokens: no interval can be given"
    return Clusters("block", blocks, sql, note)


def jackknife_ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Interval:
    """Return Σ numerator / Σ denominator with its delete-one jackknife-t interval.

    Args:
        numerator: [G] sums per cluster, such as losses in nats.
        denominator: [G] counts per cluster, such as tokens or bytes.

    For (1, 2, 6) over (1, 1, 2) the estimate is 9/4, the ratios without one cluster are 8/3, 7/3 and 3/2 with mean
    13/6, so SE² = 2/3 · 13/18 and the interval is 2.25 ± 4.302653 · 0.693889.

    >>> interval = jackknife_ratio([1, 2, 6], [1, 1, 2])
    >>> round(interval.estimate, 6), round(interval.high - interval.estimate, 6)
    (2.25, 2.985562)
    """
    s, n = np.asarray(numerator, float), np.asarray(denominator, float)
    estimate = float(s.sum() / n.sum())
    without = n.sum() - n
    if len(s) < 2 or (without <= 0).any():
        return Interval(estimate, None, None)
    return around(estimate, (s.sum() - s) / without)


def around(estimate: float, replicates: npt.NDArray[np.float64]) -> Interval:
    """Return an estimate with the jackknife-t interval of its [G] delete-one replicates."""
    count = len(replicates)
    error = math.sqrt((count - 1) * float(np.var(replicates)))
    half = float(t_quantile(count)) * error
    return Interval(estimate, estimate - half, estimate + half)


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
    freedom = np.asarray(clusters, float) - 1.0
    return np.where(freedom > 0, stdtrit(np.maximum(freedom, 1.0), (1.0 + confidence) / 2.0), np.nan)


def grouped_losses(run: Run, clusters: Clusters, group: str, source: str = "tokens") -> pd.DataFrame:
    """Return the mean loss of every group with its interval, computed out of core.

    Args:
        run: the run.
        clusters: what the intervals resample.
        group: SQL expression over `source` that names a row's group.
        source: SQL relation with the columns of `tokens`; only scored rows are read.

    Returns:
        One row per group in order: `key`, `count` (tokens), `total_nats`, `mean_loss_nats`, `low`, `high` (NaN with
        fewer than two clusters), `clusters`.
    """
    sums = f"""
        SELECT {group} AS key, {clusters.sql} AS cluster, sum(loss_nats::DOUBLE) AS s, count(*) AS n
        FROM {source} WHERE unscored IS NULL GROUP BY ALL"""
    totals = f"""
        SELECT *, sum(s) OVER (PARTITION BY key) AS s_all, sum(n) OVER (PARTITION BY key) AS n_all FROM ({sums})"""
    frame = run.query(f"""
        SELECT key, any_value(n_all)::BIGINT AS count, any_value(s_all) AS total_nats, count(*) AS clusters,
               var_pop(CASE WHEN n_all > n THEN (s_all - s) / (n_all - n) END) AS variance
        FROM ({totals}) GROUP BY key ORDER BY key""")
    frame["mean_loss_nats"] = frame["total_nats"] / frame["count"]
    error = np.sqrt((frame["clusters"] - 1) * frame["variance"].astype(float))
    frame["low"] = frame["mean_loss_nats"] - t_quantile(frame["clusters"]) * error
    frame["high"] = frame["mean_loss_nats"] + t_quantile(frame["clusters"]) * error
    return frame[["key", "count", "total_nats", "mean_loss_nats", "low", "high", "clusters"]]
