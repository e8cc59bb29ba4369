"""Values of a stored column by rank, exact and in bounded memory: their bits are counted, and only some are sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import BATCH_ROWS, Run

HALF = 16  # bits: values are counted by their upper half first
HALVES = 1 << HALF
HELD = 128  # upper halves whose lower halves are counted in one scan: 64 MiB of counts, an octave of values
SORTED = 1 << 22  # values that are kept in one scan and sorted: 16 MiB
SIGN, ALL = np.uint32(1 << 31), np.uint32((1 << 32) - 1)

Bits = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int64]
Ranked = Callable[[int, int], Floats]  # values from one rank to another


def ranked_batches(run: Run, column: str, scored: str, wanted: Sequence[range]) -> Iterator[tuple[int, Floats]]:
    """Yield the values that have the wanted ranks, ascending, in batches, each with the rank of its first value.

    Ranks, from 0, are places in ascending order; NaN comes last, and a missing value as NaN. A batch ends before a
    multiple of `BATCH_ROWS` and where a span of ranks ends.

    One scan counts the values by the upper half of their bits. A second one keeps and sorts the values whose upper half
    holds a wanted rank, 4 million at most: where there are more, there are further scans, and where one upper half has
    more, its values are counted by their lower half. So memory grows neither with the rows nor with how often a value
    comes.

    Args:
        run: the run.
        column: a float32 column.
        scored: SQL from FROM on, the rows to read.
        wanted: spans of ranks below the number of rows.
    """
    sql = f"SELECT {column} {scored}"
    first, held = 0, np.empty(0)
    for at, values in _pieces(run, sql, _apart(wanted)):
        if at == first + len(held) and at % BATCH_ROWS:
            held = np.concatenate([held, values])
            continue
        if len(held):
            yield first, held
        first, held = at, values
    if len(held):
        yield first, held


def values_at(ranks: Iterable[int], first: int, values: Floats) -> dict[int, float]:
    """Return the value of each rank that lies in a batch, whose first value has the rank `first`.

    >>> import numpy
    >>> values_at([1, 5, 6], 4, numpy.array([0.25, 0.5]))
    {5: 0.5}
    """
    return {rank: float(values[rank - first]) for rank in ranks if 0 <= rank - first < len(values)}


def _apart(spans: Sequence[range]) -> list[range]:
    """Return the same ranks, ascending, in spans that do not touch.

    >>> _apart([range(7, 9), range(1, 2), range(8, 12), range(2, 3), range(0)])
    [range(1, 3), range(7, 12)]
    """
    apart: list[range] = []
    for span in sorted(filter(len, spans), key=lambda span: span.start):
        if apart and span.start <= apart[-1].stop:
            apart[-1] = range(apart[-1].start, max(apart[-1].stop, span.stop))
        else:
            apart.append(span)
    return apart


def _pieces(run: Run, sql: str, spans: Sequence[range]) -> Iterator[tuple[int, Floats]]:
    """Yield the values of spans in pieces, which also end where the upper half of the bits changes."""
    upper = np.zeros(HALVES, np.int64)
    for bits in _read(run, sql):
        upper += np.bincount(bits >> HALF, minlength=HALVES)
    stops = upper.cumsum()
    starts = stops - upper
    touched = {int(half) for span in spans for half in _overlapping(starts, stops, span)}
    for chosen in _groups(sorted(touched), upper):
        few = upper[chosen].sum() <= SORTED
        found = _sorted(run, sql, chosen, upper) if few else _counted(run, sql, chosen)
        for half, values in zip(chosen.tolist(), found, strict=True):
            for span in spans:
                first, last = max(span.start, int(starts[half])), min(span.stop, int(stops[half]))
                while first < last:
                    stop = min(last, first - first % BATCH_ROWS + BATCH_ROWS)
                    yield first, values(first - int(starts[half]), stop - int(starts[half]))
                    first = stop


def _groups(halves: Sequence[int], upper: Counts) -> Iterator[Counts]:
    """Yield upper halves in groups that one scan reads: of few values together, or each of many values."""
    group: list[int] = []
    for half in halves:
        together = int(upper[[*group, half]].sum()) <= SORTED
        many = len(group) < HELD and bool((upper[[*group, half]] > SORTED).all())
        if group and not (together or many):
            yield np.array(group)
            group = []
        group.append(half)
    if group:
        yield np.array(group)


def _overlapping(starts: Counts, stops: Counts, span: range) -> Counts:
    """Return which of the spans from `starts` to `stops`, one after the other, hold a rank of `span`."""
    first, last = np.searchsorted(stops, span.start, side="right"), np.searchsorted(starts, span.stop, side="left")
    return np.arange(first, last)[starts[first:last] < stops[first:last]]


def _sorted(run: Run, sql: str, chosen: Counts, upper: Counts) -> list[Ranked]:
    """Return for each chosen upper half what gives its values by rank, from 0: they are kept and sorted."""
    is_chosen = np.zeros(HALVES, bool)
    is_chosen[chosen] = True
    ends = upper[chosen].cumsum()
    kept, size = np.empty(ends[-1], np.uint32), 0
    for bits in _read(run, sql):
        found = bits[is_chosen[bits >> HALF]]
        kept[size : size + len(found)] = found
        size += len(found)
    kept.sort()
    return [partial(_between, values) for values in np.split(kept, ends[:-1])]


def _between(ordered: Bits, first: int, stop: int) -> Floats:
    return _values(ordered[first:stop])


def _counted(run: Run, sql: str, chosen: Counts) -> Iterator[Ranked]:
    """Yield for each chosen upper half what gives its values by rank, from 0: they are counted by their lower half."""
    counts = np.zeros(len(chosen) * HALVES, np.int64)
    place = np.full(HALVES, -1)
    place[chosen] = np.arange(len(chosen))
    for bits in _read(run, sql):
        row = place[bits >> HALF]
        kept = row >= 0
        np.add.at(counts, (row[kept] << HALF) | (bits[kept] & (HALVES - 1)), 1)  # many times faster with one index
    for half, found in zip(chosen.tolist(), counts.reshape(-1, HALVES), strict=True):
        low = np.flatnonzero(found)
        yield partial(_repeated, (half << HALF) | low, found[low].cumsum())


def _repeated(ordered: Counts, ends: Counts, first: int, stop: int) -> Floats:
    """Return the values of ranks from `first` to `stop`, where each value comes up to the rank in `ends`."""
    return _values(ordered[np.searchsorted(ends, np.arange(first, stop), side="right")])


def _read(run: Run, sql: str) -> Iterator[Bits]:
    """Yield a column's values as whole numbers of 32 bits, whose order is theirs."""
    for batch in run.batches(sql):
        values = batch.column(0).to_numpy(zero_copy_only=False).astype(np.float32)
        bits = np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32)  # NaN has no sign here
        yield bits ^ np.where(bits & SIGN, ALL, SIGN)


def _values(ordered: npt.NDArray[np.integer]) -> Floats:
    """Return the values of such whole numbers.

    >>> _values(np.array([0x407FFFFF, 0x80000000, 0xBF800000])).tolist()
    [-1.0, 0.0, 1.0]
    """
    bits = ordered.astype(np.uint32)
    return (bits ^ np.where(bits & SIGN, SIGN, ALL)).view(np.float32).astype(float)
