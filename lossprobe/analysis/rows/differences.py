"""Differences of two runs' losses on the same tokens: d = second − first, its sums, standard errors and tests.

Standard errors are those of the delete-one-cluster jackknife (see `clusters`). Tests are two-sided, Student's t with
G − 1 degrees of freedom for G clusters. Where many groups are tested at once, p-values are adjusted by Holm's
step-down rule (Holm 1979, Scandinavian Journal of Statistics 6, 65-70): whatever the dependence between the groups, the
chance that even one of the groups without a change is called significant is at most 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtr

from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.paired import Ints, PairedRows, paired_batches
from lossprobe.analysis.stats.jackknife import Clusters, grouped_errors, t_quantile
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

EASY_NATS, HARD_NATS = 1.0, 3.0  # probabilities of 37 % and 5 %
TESTED_CLUSTERS = 5  # fewer can hardly reach a p-value that survives adjustment, and would only cost the others power
OCTAVES = 32  # a context is an int32
LEVEL = 0.05
TRANSITION_RULE = (
    f"forgotten: the first model's loss below {EASY_NATS:g} nat (probability above 37 %), the second's above "
    f"{HARD_NATS:g} nats (below 5 %); learned: the other way round"
)


@dataclass
class GroupSums:
    """Sums of d and counts of tokens in every cell (group, cluster), filled batch by batch.

    Attributes:
        nats, tokens: float64 [groups, clusters].
    """

    shape: tuple[int, int]
    nats: Floats = field(init=False, repr=False)
    tokens: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.nats, self.tokens = np.zeros(self.shape), np.zeros(self.shape)

    def add(self, group: Ints, cluster: Ints, difference: Floats) -> None:
        """Add tokens: the number of their group and of their cluster from 0 on, and their d, each [n]."""
        cell = group * self.shape[1] + cluster
        np.add.at(self.nats.reshape(-1), cell, difference)
        np.add.at(self.tokens.reshape(-1), cell, 1.0)


def present_clusters(run: Run, clusters: Clusters) -> Ints:
    """Return the names of the clusters that hold scored tokens, int64 [G] in order."""
    frame = run.query(f"SELECT DISTINCT {clusters.sql} AS cluster FROM tokens WHERE unscored IS NULL ORDER BY 1")
    return frame["cluster"].to_numpy(np.int64)


def finite_batches(runs: tuple[Run, Run], columns: Mapping[str, str], clusters: Clusters) -> Iterator[PairedRows]:
    """Yield `paired_batches` of two runs; a column named `nats` must be finite.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    for rows in paired_batches(runs, columns, clusters):
        if not np.isfinite(rows.values["nats"]).all():
            for run in runs:
                refuse_not_finite(run)
        yield rows


def octaves(context: Floats) -> Ints:
    """Return the largest k with 2^k ≤ context, for contexts from 1 on.

    >>> octaves(np.array([1.0, 2, 3, 4, 1023, 1024])).tolist()
    [0, 1, 1, 2, 9, 10]
    """
    return np.frexp(context)[1].astype(np.int64) - 1


def transitions(losses: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which tokens the second model forgot and which it learned, by `TRANSITION_RULE`; losses [2, n] in nats.

    >>> transitions(np.array([[0.5, 4.0, 1.5], [3.5, 0.25, 3.5]]))
    (array([ True, False, False]), array([False,  True, False]))
    """
    first, second = losses
    return (first < EASY_NATS) & (second > HARD_NATS), (first > HARD_NATS) & (second < EASY_NATS)


def mean_changes(nats: Floats, tokens: Floats) -> pd.DataFrame:
    """Return the mean difference of every group with its interval and test.

    Args:
        nats: float64 [groups, clusters], sums of d.
        tokens: float64 [groups, clusters], how many there were; cells without tokens do not count as clusters.

    Returns:
        One row per group with tokens: `key` (its number), `tokens`, `clusters`, `mean_difference_nats`, `error` (the
        standard error), `low`, `high` (NaN with fewer than two clusters), `contribution_nats` (Σ d of the group over
        all tokens, so that they sum to the overall mean) and `p_value` (NaN with fewer than two clusters; 1 where no
        cluster changed at all).
    """
    group, cluster = np.nonzero(tokens)
    return grouped_changes(group, nats[group, cluster], tokens[group, cluster])


def grouped_changes(group: Ints, nats: Floats, tokens: Floats) -> pd.DataFrame:
    """Return `mean_changes` of cells [M] that all have tokens, those of a group side by side.

    One group with the cells of `clusters.jackknife_ratio`, and one of a single cluster:

    >>> found = grouped_changes(np.array([0, 0, 0, 7]), np.array([1, 2, 6, 5.0]), np.array([1, 1, 2, 1.0]))
    >>> found[["key", "mean_difference_nats", "error"]].round(6).to_numpy().tolist()
    [[0.0, 2.25, 0.693889], [7.0, 5.0, nan]]
    """
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    total_nats, total_tokens = np.add.reduceat(nats, starts), np.add.reduceat(tokens, starts)
    clusters = np.diff([*starts, len(group)])
    mean = total_nats / total_tokens
    error = grouped_errors(nats, tokens, starts)
    half = t_quantile(clusters) * error
    return pd.DataFrame(
        {
            "key": group[starts],
            "tokens": total_tokens.astype(np.int64),
            "clusters": clusters.astype(np.int64),
            "mean_difference_nats": mean,
            "error": error,
            "low": mean - half,
            "high": mean + half,
            "contribution_nats": total_nats / max(1.0, float(tokens.sum())),
            "p_value": two_sided(mean, error, clusters),
        }
    )


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
