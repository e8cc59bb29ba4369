"""Values of a stored column by rank, exact and out of core: one sorted pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lossprobe.analysis.resampling import Floats
from lossprobe.run.reader import Run


def sorted_batches(run: Run, column: str, scored: str) -> Iterator[tuple[int, Floats]]:
    """Yield the values of a column in ascending order, in batches, each with the rank of its first value from 0.

    NaN comes last, and a missing value as NaN.

    Args:
        run: the run.
        column: the column.
        scored: SQL from FROM on, the rows to read.
    """
    first = 0
    for batch in run.batches(f"SELECT {column} {scored} ORDER BY {column} NULLS LAST"):
        values = batch.column(0).to_numpy(zero_copy_only=False).astype(float)
        yield first, values
        first += len(values)


def values_at(ranks: Iterable[int], first: int, values: Floats) -> dict[int, float]:
    """Return the value of each rank that lies in a batch, whose first value has the rank `first`.

    >>> import numpy
    >>> values_at([1, 5, 6], 4, numpy.array([0.25, 0.5]))
    {5: 0.5}
    """
    return {rank: float(values[rank - first]) for rank in ranks if 0 <= rank - first < len(values)}
