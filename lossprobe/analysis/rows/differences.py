"""Differences of two runs' losses on the same tokens: d = second − first, its sums, standard errors and tests.

Standard errors are those of the delete-one-cluster jackknife (see `clusters`). Tests are two-sided, Student's t with
G − 1 degrees of freedom for G clusters, adjusted by Holm's rule where many groups are tested at once (see
`stats.significance`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.paired import NONE, Ints, PairedRows, paired_batches
from lossprobe.analysis.stats.jackknife import Clusters, grouped_errors, t_quantile
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.analysis.stats.significance import two_sided
from lossprobe.run.reader import Run

EASY_NATS, HARD_NATS = 1.0, 3.0  # probabilities of 37 % and 5 %
TESTED_CLUSTERS = 5  # fewer can hardly reach a p-value that survives adjustment, and would only cost the others power
TRANSITION_RULE = f"forgotten: from below {EASY_NATS:g} nat to above {HARD_NATS:g}; learned: the other way round"


@dataclass
class DifferenceSums:
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


def finite_batches(
    runs: tuple[Run, Run], columns: Mapping[str, str], clusters: Clusters, of_first: Mapping[str, str] = NONE
) -> Iterator[PairedRows]:
    """Yield `paired_batches` of two runs; a column named `nats` must be finite.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    for rows in paired_batches(runs, columns, clusters, of_first):
        if not np.isfinite(rows.values["nats"]).all():
            for run in runs:
                refuse_not_finite(run)
        yield rows


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

    One group with the cells of `jackknife.jackknife_ratio`, and one of a single cluster:

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
