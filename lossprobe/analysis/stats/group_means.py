"""Means of groups with their intervals, from sums over cells that each belong to one group and one cluster."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.stats.jackknife import grouped_errors, t_quantile
from lossprobe.analysis.stats.resampling import Floats

Ints = npt.NDArray[np.int64]


class GroupMeans:
    """The cells of groups: which of them hold tokens, and how many.

    Args:
        group_of: int64 [C], the number of each cell's group.
        cluster_of: int64 [C], that of its cluster; cells of one group and one cluster are added up.
        tokens: float64 [C], how many tokens it holds.
    """

    def __init__(self, group_of: Ints, cluster_of: Ints, tokens: Floats) -> None:
        self._held = np.flatnonzero(tokens)
        clusters = int(cluster_of.max(initial=0)) + 1
        keys = group_of[self._held] * clusters + cluster_of[self._held]
        cells, self._place = np.unique(keys, return_inverse=True)
        groups = cells // clusters
        self._tokens: Floats = np.bincount(self._place, tokens[self._held]).astype(float)
        self._starts: Ints = np.flatnonzero(np.diff(groups, prepend=-1)).astype(np.int64)
        self._groups = groups[self._starts]
        self._clusters = np.diff([*self._starts, len(groups)])

    def table(self, sums: Floats, name: str) -> pd.DataFrame:
        """Return the mean of each group that holds tokens, with its 95 % jackknife-t interval.

        Args:
            sums: float64 [C], the sum over the tokens of each cell.
            name: of the column of the mean.

        Returns:
            one row per group in order: `row` (its number), `tokens`, `name`, `low`, `high` (NaN with fewer than two
            clusters), `clusters`.

        Group 0 with the cells of `jackknife.jackknife_ratio`, and group 7 with a single one:

        >>> means = GroupMeans(np.array([0, 0, 0, 7]), np.array([0, 1, 2, 2]), np.array([1.0, 1, 2, 1]))
        >>> means.table(np.array([1.0, 2, 6, 5]), "mean").round(6).to_numpy().tolist()
        [[0.0, 4.0, 2.25, -0.735562, 5.235562, 3.0], [7.0, 1.0, 5.0, nan, nan, 1.0]]
        """
        own: Floats = np.bincount(self._place, sums[self._held]).astype(float)
        totals = np.add.reduceat(self._tokens, self._starts)
        mean = np.add.reduceat(own, self._starts) / totals
        half = t_quantile(self._clusters) * grouped_errors(own, self._tokens, self._starts)
        return pd.DataFrame(
            {
                "row": self._groups, "tokens": totals.astype(np.int64), name: mean, "low": mean - half,
                "high": mean + half, "clusters": self._clusters,
            }
        )  # fmt: skip
