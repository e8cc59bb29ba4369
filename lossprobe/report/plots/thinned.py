"""Draws long series with as many points as a picture has columns, so that no spike is lost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COLUMNS = 1_200  # pixels that a picture is wide


def thinned(steps: npt.NDArray[np.int64], values: Floats, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """Return the points of a line that looks like that of all points: of each column the lowest and the highest value.

    Args:
        steps: [N], rising.
        values: [N]; what is not finite is left out, and a column without any other value is a gap.
        columns: columns of pixels that the steps are drawn into.

    Returns:
        Steps and values, both [N] where that is no more than two a column, else both [2 · columns with steps].

    >>> x, y = thinned(np.arange(6), np.array([1.0, 9.0, 1.0, 1.0, 1.0, 2.0]), columns=2)
    >>> x.tolist(), y.tolist()  # the columns hold steps 0 to 2 and 3 to 5
    ([0.0, 1.0, 3.0, 5.0], [1.0, 9.0, 1.0, 2.0])
    """
    kept = np.arange(len(steps)) if len(steps) <= 2 * columns else _lowest_and_highest(steps, values, columns)
    return steps[kept].astype(np.float64), np.where(np.isfinite(values[kept]), values[kept], np.nan)


def _lowest_and_highest(steps: npt.NDArray[np.int64], values: Floats, columns: int) -> npt.NDArray[np.int64]:
    """Return the rows of the lowest and the highest finite value of each column, in order; one column at a time."""
    edges = steps[0] + np.ceil(np.arange(columns) * (float(steps[-1] - steps[0]) / columns)).astype(np.int64)
    starts = np.unique(np.searchsorted(steps, edges))
    kept = []
    for begin, end in pairwise([*starts.tolist(), len(steps)]):
        column = values[begin:end]
        known = np.flatnonzero(np.isfinite(column))
        ends = known[[np.argmin(column[known]), np.argmax(column[known])]] if len(known) else np.zeros(2, np.int64)
        kept += sorted(begin + ends)
    return np.array(kept)


def columns_of(steps: npt.NDArray[np.int64], columns: int = COLUMNS) -> npt.NDArray[np.int64]:
    """Return the column of pixels that each step is drawn in, from 0."""
    first, last = float(steps[0]), float(steps[-1])
    return ((steps - first) / max(last - first, 1.0) * columns).astype(np.int64).clip(0, columns - 1)
