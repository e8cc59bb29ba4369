"""Several runs of the same tokens, read side by side: rows in lockstep, and sums over them.

Pairing is what makes small differences visible: two models find the same tokens hard, so that the difference of
their losses on one token varies far less than either loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.analysis.rows.clusters import numbering, present_clusters
from lossprobe.analysis.rows.outcomes import refuse_not_finite
from lossprobe.analysis.rows.scored_rows import Ints as Ints
from lossprobe.analysis.rows.scored_rows import cluster_reader, numbers
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import NotComparableError
from lossprobe.run.copies import NUMBERED
from lossprobe.run.reader import Run
from lossprobe.units import visible

KEYS = ("document", "token", "token_id")
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class PairedRows:
    """Consecutive tokens that all of R runs scored.

    Attributes:
        document, token, token_id: integers [n], which tokens.
        cluster: int64 [n], what intervals resample.
        values: name → float64 [R, n], one row per run, or [1, n] where only the first run was asked.
        left_out: tokens that stood between these, and only some of the runs scored.
    """

    document: npt.NDArray[np.int32]
    token: Ints
    token_id: npt.NDArray[np.int32]
    cluster: Ints
    values: dict[str, Floats] = field(repr=False)
    left_out: int


@dataclass(frozen=True)
class PairedSums:
    """Sums over the tokens that all runs scored.

    Attributes:
        sums: name → float64 [G, cells], sums of each cluster and cell, clusters in order; "tokens" is their count.
        left_out: tokens that only some of the runs scored.
    """

    sums: dict[str, Floats] = field(repr=False)
    left_out: int


Measures = Callable[[PairedRows], Mapping[str, Floats]]
Cells = Callable[[PairedRows], Ints]


def paired_batches(
    runs: Sequence[Run], columns: Mapping[str, str], clusters: Clusters, of_first: Mapping[str, str] = NONE
) -> Iterator[PairedRows]:
    """Yield the tokens that all runs scored, in text order and bounded memory.

    Args:
        runs: runs of the same tokens.
        columns: name → SQL expression over `tokens`, a number.
        clusters: what intervals resample; its SQL is evaluated on the first run.
        of_first: further columns of the first run alone.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens; the message names the first that differs.
    """
    cluster_of = cluster_reader(runs[0], clusters)
    named = {} if NUMBERED in clusters.sql else {"cluster": clusters.sql}
    for batches in _lockstep(runs, columns, {**named, **of_first}):
        keys = [[numbers(batch, name) for name in KEYS] for batch in batches]
        for run, other in zip(runs[1:], keys[1:], strict=True):
            _refuse_different((runs[0], run), (keys[0], other))
        scored = [numbers(batch, "scored") for batch in batches]
        in_all = np.logical_and.reduce(scored)
        places = np.flatnonzero(in_all)  # taking rows by their places is several times faster than by a mask
        document, token, token_id = (key.take(places) for key in keys[0])
        yield PairedRows(
            document=document,
            token=token,
            token_id=token_id,
            cluster=cluster_of(batches[0]).take(places),
            values={name: _taken(batches, name, places) for name in columns}
            | {name: _taken(batches[:1], name, places) for name in of_first},
            left_out=int((np.logical_or.reduce(scored) & ~in_all).sum()),
        )


def _taken(batches: Sequence[pa.RecordBatch], name: str, places: Ints) -> Floats:
    """Return float64 [R, n], a column of each batch at n rows."""
    values = np.empty((len(batches), len(places)))
    for batch, row in zip(batches, values, strict=True):
        row[:] = numbers(batch, name).take(places)
    return values


def paired_sums(
    runs: Sequence[Run],
    columns: Mapping[str, str],
    clusters: Clusters,
    measures: Measures,
    cells: tuple[Cells, int],
) -> PairedSums:
    """Return sums of some measures over the tokens that all runs scored, by cluster and cell.

    Args:
        runs: runs of the same tokens.
        columns: name → SQL expression over `tokens`.
        clusters: what intervals resample.
        measures: maps rows to name → float64 [n], what is summed.
        cells: maps rows to int64 [n], the cell of each from 0 on; and how many cells there are.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    cell_of, count = cells
    present = present_clusters(runs[0], clusters)
    number = numbering(present)
    sums: dict[str, Floats] = {}
    left_out = 0
    for rows in paired_batches(runs, columns, clusters):
        index = number(rows.cluster) * count + cell_of(rows)
        weights = {"tokens": None, **measures(rows)}
        for name, weight in weights.items():
            added = np.bincount(index, weight, len(present) * count)
            sums[name] = sums[name] + added if name in sums else added.astype(float)
        left_out += rows.left_out
    if not all(np.isfinite(total).all() for total in sums.values()):
        for run in runs:
            refuse_not_finite(run)
    return PairedSums({name: total.reshape(-1, count) for name, total in sums.items()}, left_out)


def _lockstep(
    runs: Sequence[Run], columns: Mapping[str, str], of_first: Mapping[str, str]
) -> Iterator[list[pa.RecordBatch]]:
    """Yield the same rows of every run, one Arrow batch each, with columns; runs may cut theirs at different rows."""
    keys = f"{', '.join(KEYS)}, unscored IS NULL AS scored"
    chosen, further = ("".join(f", {sql} AS {name}" for name, sql in each.items()) for each in (columns, of_first))
    streams = [
        run.batches(f"SELECT {keys}{chosen}{further * (place == 0)} FROM tokens") for place, run in enumerate(runs)
    ]
    heads: list[Any] = [_next_batch(stream) for stream in streams]
    while all(head is not None for head in heads):
        rows = min(head.num_rows for head in heads)
        yield [head.slice(0, rows) for head in heads]
        heads = [
            head.slice(rows) if head.num_rows > rows else _next_batch(stream)
            for head, stream in zip(heads, streams, strict=True)
        ]
    for run, head in zip(runs, heads, strict=True):
        if head is not None:
            ended = next(other for other, end in zip(runs, heads, strict=True) if end is None)
            row = ", ".join(f"{name} {numbers(head, name)[0]}" for name in KEYS)
            raise _different(runs[0], run if run is not runs[0] else ended, f"only {_named(run)} has {row}")


def _next_batch(stream: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return next((batch for batch in stream if batch.num_rows), None)


def _refuse_different(runs: tuple[Run, Run], keys: tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]) -> None:
    differs = np.logical_or.reduce([one != other for one, other in zip(*keys, strict=True)])
    if differs.any():
        row = int(differs.argmax())
        one, other = (
            ", ".join(f"{name} {values[row]}" for name, values in zip(KEYS, key, strict=True)) for key in keys
        )
        raise _different(*runs, f"{one} is {other} in the second")


def _different(first: Run, second: Run, where: str) -> NotComparableError:
    return NotComparableError(
        "runs.different_tokens",
        f"{_named(first)} and {_named(second)} did not score the same tokens: {where}",
        hint="score both with the same text and options",
    )


def _named(run: Run) -> str:
    return visible(run.name, 80)
