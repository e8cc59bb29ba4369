"""Draws long series with as many points as a picture has columns, so that no spike is lost."""

from __future__ import annotations

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
    shown = np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= 2 * columns:
        return steps.astype(np.float64), shown
    starts = np.flatnonzero(np.diff(columns_of(steps, columns), prepend=-1))
    low, high = np.fmin.reduceat(shown, starts), np.fmax.reduceat(shown, starts)
    sizes = np.diff(starts, append=len(steps))
    column = np.repeat(np.arange(len(starts)), sizes)
    rows = np.arange(len(steps))
    first_low, first_high = (
        np.minimum.reduceat(np.where(shown == ends[column], rows, len(steps)), starts) for ends in (low, high)
    )
    empty = np.isnan(low)
    first_low[empty] = first_high[empty] = starts[empty]
    kept = np.sort(np.column_stack([first_low, first_high]), axis=1).ravel()
    return steps[kept].astype(np.float64), shown[kept]


def columns_of(steps: npt.NDArray[np.int64], columns: int = COLUMNS) -> npt.NDArray[np.int64]:
    """Return the column of pixels that each step is drawn in, from 0."""
    first, last = float(steps[0]), float(steps[-1])
    return ((steps - first) / max(last - first, 1.0) * columns).astype(np.int64).clip(0, columns - 1)
