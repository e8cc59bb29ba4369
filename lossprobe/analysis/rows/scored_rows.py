"""The scored tokens of a run, read once for several sums; each sum equals that of SQL to the last digit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.copies import NUMBERED
from lossprobe.run.reader import Run

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredRows:
    """Consecutive scored tokens of a run.

    Attributes:
        cluster: int64 [n], what intervals resample.
        values: name → float64 [n], NaN where a value is missing.
    """

    cluster: Ints
    values: dict[str, Floats] = field(repr=False)


class CellSums:
    """Sums over cells of tokens. Each is taken in the order of the rows, as SQL does that groups by the cell.

    Args:
        names: names of what is summed.
        width: how many cells each cluster has.

    Attributes:
        tokens: int64 [cells], tokens of each cell; there are as many cells as the clusters seen so far have.
        sums: name → float64 [cells].

    >>> sums = CellSums(["nats"], width=2)
    >>> sums.add(np.array([0, 2, 2]), {"nats": np.array([1.0, 2.0, 4.0])})
    >>> sums.tokens.tolist(), sums.sums["nats"].tolist()
    ([1, 0, 2, 0], [1.0, 0.0, 6.0, 0.0])
    """

    def __init__(self, names: Sequence[str], width: int = 1) -> None:
        self._width = width
        self.tokens: Ints = np.zeros(0, np.int64)
        self.sums: dict[str, Floats] = {name: np.zeros(0) for name in names}

    def add(self, cell: Ints, values: Mapping[str, Floats]) -> None:
        """Add tokens: the cell of each, `cluster` · width + its number in the cluster, and what is summed."""
        self.reach(int(cell.max(initial=-1)) // self._width + 1)
        np.add.at(self.tokens, cell, 1)
        for name, sums in self.sums.items():
            np.add.at(sums, cell, values[name])

    def reach(self, clusters: int) -> None:
        """Make room for the cells of so many clusters, and of as many again where there is too little."""
        cells = clusters * self._width
        if cells > len(self.tokens):
            added = max(cells, 2 * len(self.tokens)) - len(self.tokens)
            self.tokens = np.append(self.tokens, np.zeros(added, np.int64))
            self.sums = {name: np.append(sums, np.zeros(added)) for name, sums in self.sums.items()}

    def present(self) -> Ints:
        """Return the clusters that hold tokens, int64 [G] in order."""
        return np.flatnonzero(self.tokens.reshape(-1, self._width).any(axis=1))

    def stacked(self) -> Floats:
        """Return float64 [G, width, 1 + names]: the count of tokens, then the sums, of each cluster that holds any."""
        parts = [self.tokens.astype(np.float64), *self.sums.values()]
        return np.stack([part.reshape(-1, self._width)[self.present()] for part in parts], axis=-1)


def scored_rows(
    run: Run, clusters: Clusters, columns: Mapping[str, str], source: str = "tokens"
) -> Iterator[ScoredRows]:
    """Yield the scored tokens of a run in the order of the rows, in bounded memory.

    Args:
        run: the run.
        clusters: what intervals resample.
        columns: name → SQL expression over the source, a number.
        source: SQL relation with the columns of `tokens`.
    """
    chosen = "".join(f", {sql} AS {name}" for name, sql in columns.items())
    read = cluster_reader(run, clusters)
    sql = f"SELECT {cluster_column(clusters)}{chosen} FROM {source} WHERE unscored IS NULL"
    for batch in run.batches(sql):
        values = {name: numbers(batch, name).astype(np.float64, copy=False) for name in columns}
        yield ScoredRows(read(batch), values)


def cluster_column(clusters: Clusters) -> str:
    """Return SQL for the column from which `cluster_reader` takes the cluster of a row."""
    return "document" if NUMBERED in clusters.sql else f"{clusters.sql} AS cluster"


def cluster_reader(run: Run, clusters: Clusters) -> Callable[[pa.RecordBatch], Ints]:
    """Return what gives the cluster of each row of a batch, int64 [n].

    The number of a document's text is looked up here: SQL would do so with a subquery for each row, and give rows in
    another order than that of the text.
    """
    if NUMBERED not in clusters.sql:
        return lambda batch: numbers(batch, "cluster").astype(np.int64)
    frame = run.query(f"SELECT document, {clusters.sql} AS cluster FROM documents")
    cluster = np.zeros(int(frame["document"].max()) + 1, np.int64)
    cluster[frame["document"]] = frame["cluster"]
    return lambda batch: cluster[numbers(batch, "document")]


def numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """Return a column; in a column of floats an empty cell is NaN."""
    values: npt.NDArray[Any] = batch.column(name).to_numpy(zero_copy_only=False)
    return values
