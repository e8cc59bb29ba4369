"""How much a loss scatters about its curve, its level over neighbouring rows, and the smoothed line of pictures."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter, uniform_filter1d

from lossprobe.logs.log import Series

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TO_SD = 1.482602218505602  # 1 / Φ⁻¹(3/4): the median of |x| of a normal distribution as its standard deviation
MEAN_TO_SD = 1.2533141373155003  # √(π / 2): the same of the mean of |x|
FEWEST_FOR_LINE = 6
PIECE = 1 << 16  # rows that are worked on at once: a temporary copy of a long log would double its memory
MOST_SMOOTHED = 1 << 17  # rows of a smoothed line
SMOOTHED_ROWS = 1 / 3  # each way, of the root of all rows: 3 of 100, 333 of a million


def scale(values: Floats, apart: int = 1) -> float:
    """Return the standard deviation of values about a smooth curve: robust, and blind to the curve's slope.

    It is 1.4826 · median |x₍ₜ₋ₖ₎ − 2xₜ + x₍ₜ₊ₖ₎| / √6: such differences of independent noise have six times its
    variance, and those of a straight line are 0. Where half of them are 0, as in a log of few digits, their mean takes
    the place of the median.

    Args:
        values: [N], finite.
        apart: k, the rows between; noise of neighbours that are alike needs more than 1.

    Returns:
        0.0 for fewer than 2k + 1 values.

    >>> scale(np.arange(9.0)), round(scale(np.array([0.0, 1.0, 0.0, 1.0, 0.0])), 4)  # 1.4826 · 2 / √6
    (0.0, 1.2105)
    """
    if len(values) <= 2 * apart:
        return 0.0
    differences = -2.0 * values[apart:-apart]
    differences += values[: -2 * apart]
    differences += values[2 * apart :]
    return scale_of(differences)


def scale_of(differences: Floats) -> float:
    """Return the standard deviation of values from their second differences, as `scale` does; at least one.

    The differences are changed in place.
    """
    size = np.abs(differences, out=differences)
    middle = float(np.median(size, overwrite_input=True)) * TO_SD
    return (middle if middle > 0.0 else float(size.mean()) * MEAN_TO_SD) / math.sqrt(6.0)


def levels(values: Floats, blocks: int) -> tuple[Floats, Ints]:
    """Return the medians of neighbouring rows, in at most so many blocks, and the first row of each block.

    >>> levels(np.array([1.0, 2.0, 9.0, 4.0, 5.0]), 2)
    (array([2. , 4.5]), array([0, 3]))
    """
    width = max(1, -(-len(values) // blocks))
    whole = len(values) // width * width
    at_once = max(1, PIECE // width) * width
    pieces = [values[begin : min(begin + at_once, whole)] for begin in range(0, whole, at_once)]
    middles = np.concatenate([np.zeros(0), *(np.median(piece.reshape(-1, width), axis=1) for piece in pieces)])
    if whole < len(values):
        middles = np.append(middles, np.median(values[whole:]))
    return middles, np.arange(len(middles)) * width


def level_at_rows(values: Floats, blocks: int) -> Floats:
    """Return a curve through the medians of `levels`, straight between the blocks' middles: float64 [N]."""
    middles, starts = levels(values, blocks)
    ends = np.append(starts[1:], len(values))
    line = np.empty(len(values))
    for begin in range(0, len(values), PIECE):
        rows = np.arange(begin, min(begin + PIECE, len(values)))
        line[rows[0] : rows[-1] + 1] = np.interp(rows, (starts + ends - 1) / 2.0, middles)
    return line


def line_at(x: Floats, y: Floats) -> tuple[float, float]:
    """Return where the straight line of least squares through points meets x = 0, and its standard error.

    Fewer than `FEWEST_FOR_LINE` points have a slope that is mostly noise: then it is their mean.

    >>> line_at(np.arange(1.0, 7.0), np.arange(3.0, 9.0))
    (2.0, 0.0)
    """
    if len(x) < FEWEST_FOR_LINE:
        return float(y.mean()), float(y.std(ddof=1)) / math.sqrt(len(y))
    centre = float(x.mean())
    spread = float(((x - centre) ** 2).sum())
    slope = float(((x - centre) * y).sum()) / spread
    left = y - y.mean() - slope * (x - centre)
    variance = float((left**2).sum()) / (len(x) - 2)
    return float(y.mean()) - slope * centre, math.sqrt(variance * (1.0 / len(x) + centre**2 / spread))


def smoothed(series: Series) -> tuple[Ints, Floats]:
    """Return the line that a picture draws through a series: the median of the rows around each, rounded off.

    A row has √N / 3 of all N rows on each side; where the log begins or ends, its first or last value stands
    for what is missing. So the line shows neither single spikes nor any lag, also where the loss falls steeply or by a
    step. The mean of half as many medians rounds off its stairs. Rows that are not finite count as lying straight
    between their neighbours.

    Returns:
        Steps and the line there, [N]; of more than `MOST_SMOOTHED` rows, neighbours are first joined into at most so
        many medians, still more than a picture can show. NaN before the first finite row, after the last one, and where
        none is so near.

    >>> from lossprobe.logs.log import LOSS, TRAIN
    >>> values = np.array([8.0, 4.0, 3.0, 2.0, 9.0, 2.0] + [1.0] * 40)
    >>> _, line = smoothed(Series(TRAIN, LOSS, "loss", np.arange(46), values))
    >>> line[:4].round(2)  # medians 8, 4, 4, 3, 2 of five rows
    array([6.67, 5.33, 3.67, 3.  ])
    """
    width = max(1, -(-len(series.values) // MOST_SMOOTHED))
    steps, values = (series.steps, series.values) if width == 1 else _joined(series, width)
    finite = np.isfinite(values)
    if not finite.any():
        return steps, np.full(len(values), np.nan)
    rows, known = np.arange(len(values)), np.flatnonzero(finite)
    reach = int(SMOOTHED_ROWS * math.sqrt(len(series.values)) / width)
    medians = median_filter(np.interp(rows, known, values[known]), size=2 * reach + 1, mode="nearest")
    line = uniform_filter1d(medians, size=2 * (reach // 2) + 1, mode="nearest")
    after = np.searchsorted(known, rows).clip(1, max(len(known) - 1, 1))
    before, after = known[after - 1], known[after.clip(max=len(known) - 1)]
    near = np.minimum(np.abs(rows - before), np.abs(after - rows)) <= reach
    return steps, np.where(near & (rows >= known[0]) & (rows <= known[-1]), line, np.nan)


def _joined(series: Series, width: int) -> tuple[Ints, Floats]:
    """Return the middle step and the median of the finite values of each so many rows; rows left at the end have none.

    >>> _joined(Series("train", "loss", "loss", np.arange(7), np.array([1.0, 2, 9, np.nan, 4, 3, 0])), 3)
    (array([1, 4]), array([2. , 3.5]))
    """
    count = len(series.values) // width
    medians = np.empty(count)
    at_once = max(1, PIECE // width)
    for begin in range(0, count, at_once):
        end = min(begin + at_once, count)
        rows = series.values[begin * width : end * width].reshape(-1, width)
        ordered = np.sort(np.where(np.isfinite(rows), rows, np.nan), axis=1)  # NaN stands last
        known = np.isfinite(ordered).sum(axis=1)
        middle = np.stack([np.maximum(known - 1, 0) // 2, np.minimum(known // 2, width - 1)], axis=1)
        medians[begin:end] = np.take_along_axis(ordered, middle, axis=1).mean(axis=1)
    return series.steps[width // 2 : count * width : width], medians
