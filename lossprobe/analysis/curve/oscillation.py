"""A training loss that goes up and down in cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import CYCLES, FEWEST_FOR_CYCLES, OPPOSITE, REPEATED
from lossprobe.analysis.curve.noise import Floats, level_at_rows, scale
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.units import format_count

BLOCKS = (2 * CYCLES, 8 * CYCLES, 32 * CYCLES)  # the finer, the better they follow a curve, and the shorter the cycles
SINCE = (0.1, 0.5)  # of the rows: the later half is straighter
MOST_ROWS = 1 << 15
ALMOST = 0.7
OUTLIER = 4.0  # standard deviations to which residuals are cut


@dataclass(frozen=True)
class Cycle:
    """A cycle: its rows, how far it goes up and down (highest less lowest, nats), and the correlations that show it."""

    rows: int
    height: float
    opposite: float
    repeated: float


def oscillation(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss repeats itself in cycles that neither epochs nor the learning rate have."""
    train = seen.train
    cycle = next(filter(None, _tries(train.values)), None)
    if cycle is None or _of_epochs(train, cycle) or _of_rate(seen, cycle):
        return
    apart = float(np.median(np.diff(train.steps)))
    evidence = (
        f"{train.key} goes up and down by {cycle.height:.3g} nats about every "
        f"{format_count(round(cycle.rows * apart))} "
        f"steps: its correlation with itself is {cycle.opposite:.2f} half a cycle later and {cycle.repeated:.2f} a "
        "cycle later"
    )
    first = train.step(len(train) // 10)
    yield Finding(DIAGNOSES["oscillation"], train.key, first, train.step(-1), cycle.height, "nats", evidence)


def _tries(values: Floats) -> Iterator[Cycle | None]:
    """Yield the cycles of a loss about finer and finer curves, since its steep beginning and in its later half.

    Of a long log, long cycles are looked for in means of neighbouring rows, short ones in its last rows.
    """
    width = max(1, -(-len(values) // MOST_ROWS))
    parts = [(values[: len(values) // width * width].reshape(-1, width).mean(axis=1), width)]
    if width > 1:
        parts.append((values[-MOST_ROWS:], 1))
    for rows, wide in parts:
        for since in SINCE:
            for blocks in BLOCKS:
                cycle = find_cycle(rows[int(len(rows) * since) :], blocks)
                yield None if cycle is None else replace(cycle, rows=cycle.rows * wide)


def find_cycle(values: Floats, blocks: int) -> Cycle | None:
    """Return the cycle of a loss about its curve through blocks; None where it has none beyond noise."""
    count = len(values)
    if count < FEWEST_FOR_CYCLES:
        return None
    left = values - level_at_rows(values, blocks)
    left -= np.median(left)
    limit = OUTLIER * 1.4826 * float(np.median(np.abs(left)))
    left = np.clip(left, -limit, limit)
    variance = float(np.mean(left**2))
    if variance == 0.0:
        return None
    longest = 2 * count // blocks
    if longest < 2:
        return None
    related = _autocorrelation(left, longest)
    half = _first_dip(related[: longest // 2 + 1])
    low, high = max(half + 1, int(1.6 * half)), min(len(related) - 1, math.ceil(2.4 * half))
    again = low + int(np.argmax(related[low : high + 1]))
    chance = 4.0 / math.sqrt(count)
    if related[half] > min(OPPOSITE, -chance) or related[again] < max(REPEATED, chance):
        return None
    height = 2.0 * math.sqrt(2.0 * variance * min(1.0, -float(related[half])))
    return Cycle(again, height, float(related[half]), float(related[again]))


def _first_dip(related: Floats) -> int:
    """Return the lag of the lowest correlation, or of the first dip that is almost as low: a cycle is no longer."""
    first = int(np.argmax(related <= ALMOST * related.min()))
    rises = np.flatnonzero(np.diff(related[first:]) > 0.0)
    return first + int(rises[0]) if len(rises) else len(related) - 1


def _autocorrelation(values: Floats, longest: int) -> Floats:
    """Return the correlation of values with themselves 0, 1, … `longest` rows later."""
    size = 1 << (2 * len(values) - 1).bit_length()
    power = np.abs(np.fft.rfft(values - values.mean(), size)) ** 2
    products = np.fft.irfft(power, size)[: longest + 1]
    related: Floats = products / products[0]
    return related


def _of_epochs(train: Points, cycle: Cycle) -> bool:
    """Return whether a cycle is an epoch, or a whole part of one: the same texts in the same order."""
    if train.epochs is None or not np.isfinite(train.epochs).all():
        return False
    rows = (len(train) - 1) / max(1e-9, float(train.epochs[-1] - train.epochs[0]))
    return abs(cycle.rows / rows - 1.0) < 0.15


def _of_rate(seen: Seen, cycle: Cycle) -> bool:
    """Return whether the learning rate itself goes up and down in such cycles."""
    rate = seen.rate
    if len(rate) < FEWEST_FOR_CYCLES or scale(rate.values) == 0.0 == float(np.ptp(rate.values)):
        return False
    rises = np.count_nonzero(np.diff(np.sign(np.diff(rate.values))) > 0)
    return int(rises) >= max(2, len(rate) // cycle.rows // 2)
