"""Rows far above their neighbours on both sides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import FEWEST_FOR_SPIKES, SPIKE_LEVEL, SPIKE_NEIGHBOURS, SPIKE_NOISE, SPIKE_ROWS
from lossprobe.analysis.curve.noise import Floats, level_at_rows, scale
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.units import format_count

BLOCKS = 50
FEWEST_NEIGHBOURS = 5
TAIL = (0.10, 0.03)  # shares of rows above the quantiles that the tail is continued from
MOST_RUNS = 2000  # looked at one by one


@dataclass(frozen=True)
class Spike:
    """One spike: rows [first, last] and how far its highest lies above both sides, nats."""

    first: int
    last: int
    height: float
    base: float


def spikes(seen: Seen) -> Iterator[Finding]:
    """Yield the spikes of the training loss."""
    train = seen.train
    found = find_spikes(train)
    if not found:
        return
    largest = max(found, key=lambda each: each.height)
    rows = sum(each.last - each.first + 1 for each in found)
    many = "1 spike" if len(found) == 1 else f"{format_count(len(found))} spikes"
    evidence = (
        f"{many} in {format_count(len(train))} rows; the largest, at step {format_count(train.step(largest.first))}, "
        f"is {largest.height:.3g} nats above its neighbours ({largest.base:.4g}), "
        f"{largest.height / train.noise:.3g} times the noise; the loss came back after each"
    )
    first, last = train.step(found[0].first), train.step(found[-1].last)
    yield Finding(DIAGNOSES["spikes"], train.key, first, last, 100.0 * rows / len(train), "% of rows", evidence)


def find_spikes(points: Points) -> list[Spike]:
    """Return the spikes of a loss in order; a rise that does not come back within `SPIKE_ROWS` is none."""
    count = len(points)
    if count < FEWEST_FOR_SPIKES or points.noise == 0.0:
        return []
    values = points.values
    limit = max(SPIKE_NOISE * points.noise, _chance(values))
    above = level_at_rows(values, min(BLOCKS, count // SPIKE_NEIGHBOURS))
    np.subtract(values, above, out=above)
    longest = max(3, int(SPIKE_ROWS * count))
    runs = _runs(above > limit / 2.0, gap=2)
    del above
    if len(runs) > MOST_RUNS:
        return []
    found = []
    for first, last in runs:
        before = values[max(0, first - SPIKE_NEIGHBOURS) : first]
        after = values[last + 1 : last + 1 + SPIKE_NEIGHBOURS]
        if min(len(before), len(after)) < FEWEST_NEIGHBOURS or last - first + 1 > longest:
            continue
        base = float(max(np.median(before), np.median(after)))
        height = float(values[first : last + 1].max()) - base
        if height > max(limit, SPIKE_LEVEL * abs(base), SPIKE_NOISE * max(scale(before), scale(after))):
            found.append(Spike(first, last, height, base))
    return found


def _chance(values: Floats) -> float:
    """Return how far the highest of so many rows lies above the curve where nothing is wrong, but for 1 log of 100.

    The quantiles that 10 % and 3 % of the rows lie above are continued to 1 of 100 N rows, once as an exponential tail
    and once as a power, of which the geometric mean is taken: 10 standard deviations for normal noise and 10,000 rows,
    35 for Student's t of four degrees of freedom, where the true values are 4.8 and 42.
    """
    # Rows against the middle of both neighbours: no curve comes in, and the noise is √1.5 times as large.
    above = values[:-2] + values[2:]
    above /= -2.0
    above += values[1:-1]
    above /= math.sqrt(1.5)
    high, higher = np.quantile(above, [1.0 - share for share in TAIL], overwrite_input=True).tolist()
    if not 0.0 < high < higher:
        return 0.0
    folds = math.log(TAIL[1] * 100.0 * len(above)) / math.log(TAIL[0] / TAIL[1])
    return math.sqrt((higher + (higher - high) * folds) * higher * (higher / high) ** folds)


def _runs(rows: np.ndarray, gap: int) -> list[tuple[int, int]]:
    """Return the first and last row of each run of true rows; runs that so few rows part are one.

    >>> _runs(np.array([True, False, True, False, False, False, True]), gap=1)
    [(0, 2), (6, 6)]
    """
    at = np.flatnonzero(rows)
    if not len(at):
        return []
    parted = np.flatnonzero(np.diff(at) > gap + 1)
    firsts, lasts = at[np.append(0, parted + 1)], at[np.append(parted, len(at) - 1)]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
