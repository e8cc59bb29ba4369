"""A loss that rises far and stays up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import RISE_FEW, RISE_LEVEL, RISE_LEVEL_FEW, RISE_NATS, RISE_NOISE, RISE_ROWS
from lossprobe.analysis.curve.noise import Floats, Ints, levels, scale
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.units import format_count

BLOCKS = 100
FEWEST = 5  # rows
ALIKE, FEWEST_ALIKE = 4, 40  # blocks: nearer ones may be alike
NEIGHBOURS = 20  # rows on each side of a restart


@dataclass(frozen=True)
class Rise:
    """A rise: rows [first, last] that lie above the lowest level before them.

    Attributes:
        lowest: that level, nats.
        row: where it was.
        size: how far the level of the last rows of the rise, or its highest if it came back, lies above.
        back: whether the loss came back.
    """

    first: int
    last: int
    lowest: float
    row: int
    size: float
    back: bool


def explosion(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss, or the validation loss of a log without it, rises far and stays there."""
    points = seen.train if len(seen.train) else seen.validation
    rise = find_rise(points)
    if rise is None or _at_restart(seen, points, rise):
        return
    how = f"came back at step {format_count(points.step(rise.last))}" if rise.back else "never came back"
    evidence = (
        f"{points.key} rose from {rise.lowest:.4g} (about step {format_count(points.step(rise.row))}) by "
        f"{rise.size:.3g} nats from step {format_count(points.step(rise.first))} on, and {how}"
    )
    first, last = points.step(rise.first), points.step(rise.last)
    yield Finding(DIAGNOSES["explosion"], points.key, first, last, rise.size, "nats", evidence)


def find_rise(points: Points) -> Rise | None:
    """Return the largest rise of a loss; None where it does not rise beyond noise, or comes back soon."""
    count = len(points)
    if count < FEWEST:
        return None
    middles, starts = levels(points.values, BLOCKS)
    lowest = np.minimum.accumulate(middles)
    alike = scale(middles, ALIKE) if len(middles) >= FEWEST_ALIKE else 0.0
    noise = max(scale(middles), alike, points.noise / max(1.0, count / BLOCKS) ** 0.5)
    share = RISE_LEVEL_FEW if count < RISE_FEW else RISE_LEVEL
    limit = np.maximum(np.maximum(RISE_NOISE * noise, share * np.abs(lowest)), RISE_NATS)
    up = middles - lowest > limit
    if not up.any():
        return None
    ends_up = bool(up[-1]) and (len(up) < FEWEST or bool(up[-2:].all()))
    edges = np.flatnonzero(np.diff(np.concatenate(([0], up.astype(np.int8), [0]))))
    first, end = max(edges.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
    if ends_up:
        first, end = edges[-2:].tolist()
    elif end - first < max(2, RISE_ROWS * len(up)):
        return None
    row = int(starts[int(np.argmin(middles[: first + 1]))])
    size = float((np.median(middles[first:end][-3:]) if ends_up else middles[first:end].max()) - lowest[first])
    last = count - 1 if ends_up else int(starts[min(end, len(starts) - 1)])
    # From where on most rows lie above what the rows before vary: the noise of an exploded loss says nothing of it.
    quiet = 3.0 * scale(points.values[: int(starts[first])])
    crossed = crossings(points.values[row:], float(lowest[first] + max(share * abs(lowest[first]), RISE_NATS, quiet)))
    start = row + int(crossed[0]) if len(crossed) else int(starts[first])
    return Rise(start, last, float(lowest[first]), row, size, not ends_up)


def crossings(values: Floats, limit: float) -> Ints:
    """Return the rows that, with most of the four after each, lie above a limit.

    >>> crossings(np.array([0.0, 9.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0]), 1.0)
    array([5, 6, 7])
    """
    above = values > limit
    return np.flatnonzero(above & (2 * _of_next_five(above) > _of_next_five(np.ones_like(above))))


def _of_next_five(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    """Return how many of each row and the four after it are true; one byte each, as a log may be long."""
    padded = np.append(rows, np.zeros(4, np.bool_)).view(np.int8)
    return sum((padded[later : later + len(rows)] for later in range(5)), np.zeros(len(rows), np.int8))


def _at_restart(seen: Seen, points: Points, rise: Rise) -> bool:
    """Return whether half of a rise or more is a step where the run went on after a restart, which is told as that."""
    for restart in seen.log.restarts:
        row = int(np.searchsorted(points.steps, restart.next_step))
        before, after = points.values[max(0, row - NEIGHBOURS) : row], points.values[row : row + NEIGHBOURS]
        inside = rise.row <= row <= rise.first + NEIGHBOURS and len(before) and len(after)
        if inside and float(np.median(after) - np.median(before)) > rise.size / 2.0:
            return True
    return False
