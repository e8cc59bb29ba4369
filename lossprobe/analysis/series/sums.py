"""Sums of one pass over all runs of a series, in memory that does not grow with the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.paired import Ints, PairedRows, paired_batches
from lossprobe.analysis.series.slices import SeriesSlices
from lossprobe.analysis.series.states import NOT_LEARNED, STATES, TokenStates, token_states
from lossprobe.analysis.series.tokens import TokenLists
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

COLUMNS = {"nats": "loss_nats", "entropy": "entropy_nats"}


@dataclass
class SeriesSums:
    """Sums over the tokens of K checkpoints.

    Attributes:
        nats, entropy: float64 [K, G], sums over the clusters of the whole text.
        tokens: float64 [G].
        states: int64 [K, 4], tokens in each of `STATES` as if the series ended at each checkpoint.
        cell_nats: float64 [K, C], sums of the losses over the cells of the slices.
        cell_tokens: float64 [C].
        group_states: int64 [groups, 4], tokens in each state over the whole series.
        group_learned_at: int64 [groups, K], tokens that are below from each checkpoint on, and not before.
        group_forgettings: int64 [groups], forgetting events.
        lists: the tokens to list.
        left_out: tokens that only some of the runs scored.
    """

    nats: Floats = field(repr=False)
    entropy: Floats = field(repr=False)
    tokens: Floats = field(repr=False)
    states: Ints = field(repr=False)
    cell_nats: Floats = field(repr=False)
    cell_tokens: Floats = field(repr=False)
    group_states: Ints = field(repr=False)
    group_learned_at: Ints = field(repr=False)
    group_forgettings: Ints = field(repr=False)
    lists: TokenLists
    left_out: int = 0

    def add(self, rows: PairedRows, cluster: Ints, cell: Ints, states: TokenStates, group: Ints) -> None:
        """Add rows with their clusters, cells, states and slices, each [n]."""
        self.left_out += rows.left_out
        self.tokens += np.bincount(cluster, minlength=len(self.tokens))
        self.cell_tokens += np.bincount(cell, minlength=len(self.cell_tokens))
        for step, (nats, entropy, so_far) in enumerate(
            zip(rows.values["nats"], rows.values["entropy"], states.so_far, strict=True)
        ):
            self.nats[step] += np.bincount(cluster, nats, len(self.tokens))
            self.entropy[step] += np.bincount(cluster, entropy, len(self.tokens))
            self.states[step] += np.bincount(so_far, minlength=len(STATES))
            np.add.at(self.cell_nats[step], cell, nats)
        _count(self.group_states, group, states.last)
        learned = states.learned_at != NOT_LEARNED
        _count(self.group_learned_at, group[learned], states.learned_at[learned])
        self.group_forgettings += np.bincount(group, states.forgettings, len(self.group_forgettings)).astype(np.int64)
        self.lists.add(rows, states)


def _count(table: Ints, row: Ints, column: npt.NDArray[np.integer]) -> None:
    """Add one to the cells of a table [rows, columns] that each of n tokens falls into."""
    place = row * table.shape[1] + column
    if len(place) * 8 > table.size:
        table += np.bincount(place, minlength=table.size).reshape(table.shape)
    else:
        np.add.at(table.reshape(-1), place, 1)


def series_sums(runs: Sequence[Run], slices: SeriesSlices, learned_below: float, lists: TokenLists) -> SeriesSums:
    """Return the sums of K runs of the same tokens.

    Args:
        runs: the runs in the order of their steps.
        slices: the slices of the tokens.
        learned_below: threshold in nats; see `states`.
        lists: collects the tokens to list.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    steps, groups, cells = len(runs), len(slices.names), len(slices.group_of)
    clusters = int(slices.cluster_of_read.max()) + 1
    sums = SeriesSums(
        nats=np.zeros((steps, clusters)),
        entropy=np.zeros((steps, clusters)),
        tokens=np.zeros(clusters),
        states=np.zeros((steps, len(STATES)), np.int64),
        cell_nats=np.zeros((steps, cells)),
        cell_tokens=np.zeros(cells),
        group_states=np.zeros((groups, len(STATES)), np.int64),
        group_learned_at=np.zeros((groups, steps), np.int64),
        group_forgettings=np.zeros(groups, np.int64),
        lists=lists,
    )
    batches = finite_rows(runs, COLUMNS | dict(slices.columns), slices.read)
    for rows, group in slices.keyed(batches):
        if len(group):
            sums.add(rows, *slices.place(rows, group), token_states(rows.values["nats"], learned_below), group)
        else:
            sums.left_out += rows.left_out
    return sums


def finite_rows(runs: Sequence[Run], columns: dict[str, str], clusters: Clusters) -> Iterator[PairedRows]:
    """Yield `paired_batches`; the columns of `COLUMNS` must be finite.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite.
    """
    for rows in paired_batches(runs, columns, clusters):
        if not all(np.isfinite(rows.values[name]).all() for name in COLUMNS):
            for run in runs:
                refuse_not_finite(run)
        yield rows
