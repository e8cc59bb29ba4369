"""A loss that does not fall, and one that no longer falls."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import (
    FALL_LEVEL,
    FELL_BEFORE,
    FEWEST_STEPS,
    FLAT_AT_MOST,
    FLAT_LEVEL,
    RATE_LEFT,
    UNTRAINED_NATS,
    UNTRAINED_SHARE,
)
from lossprobe.analysis.curve.noise import Floats, levels, scale
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.analysis.stats.interval import Estimate, Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

BLOCKS = 20
FEWEST = 10  # rows
LAST_BLOCKS = 10  # of the last third
LN_2 = math.log(2.0)


def not_learning(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss stays, from the start, at the level of a model that has learned nothing.

    So it does where it falls to the loss of single tokens, which their frequencies give, and stays there.
    """
    train = seen.train
    if (
        len(train) < FEWEST
        or train.values[0] <= 0.0
        or not _from_start(train)
        or train.step(-1) - train.step(0) < FEWEST_STEPS
    ):
        return
    later = train.rows_since(len(train) // 5)
    yield from _flat(train, seen, None) or _flat(later, seen, seen.single_token_nats)


def _flat(train: Points, seen: Seen, least: float | None) -> list[Finding]:
    """Return where rows of the training loss do not fall above a level, by default that of an untrained model."""
    if len(train) < FEWEST:
        return []
    middles, _ = levels(train.values, BLOCKS)
    first, last = float(middles[:2].mean()), float(middles[-2:].mean())
    error = max(scale(middles), train.noise / max(1.0, len(train) / BLOCKS) ** 0.5)
    fall, half = first - last, 2.0 * error
    lowest = first - float(middles.min())
    if (
        first <= 0.0
        or fall + half >= FALL_LEVEL * first
        or lowest >= FALL_LEVEL * first + 3.0 * error
        or not (_untrained(seen, first) if least is None else last >= least)
    ):
        return []
    begun = "" if least is None else f"fell from {seen.train.values[0]:.4g} to about what single tokens cost, and "
    evidence = (
        f"{train.key} {begun}went from {first:.4g} to {last:.4g} in {format_count(train.step(-1) - train.step(0))} "
        f"steps: {100 * fall / first:.2f} % lower, noise {train.noise:.2g} nats"
    )
    interval = Interval(fall - half, fall + half)
    name, start = DIAGNOSES["not-learning"], train.step(0)
    return [Finding(name, train.key, start, train.step(-1), fall, "nats", evidence, interval)]


def _from_start(points: Points) -> bool:
    """Return whether a log begins where the training did, and not with steps of a run that was resumed."""
    apart = float(np.median(np.diff(points.steps), overwrite_input=True))
    return points.step(0) <= max(2.0 * apart, 0.05 * points.step(-1))


def _untrained(seen: Seen, level: float) -> bool:
    """Return whether a flat loss is that of a model that knows nothing, and not of one that knows all it can.

    A preference loss of a policy that is its reference is ln 2.
    """
    if abs(level - LN_2) < 0.01 * LN_2:
        return True
    uniform = seen.uniform_nats
    return level >= (UNTRAINED_NATS if uniform is None else UNTRAINED_SHARE * uniform)


def plateau(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss fell and, over the last third of the rows, does not fall any more."""
    train = seen.train
    third = train.rows_since(2 * len(train) // 3)
    if len(third) < FEWEST or _rate_fell(seen, third):
        return
    change = change_over(third.values)
    level = float(np.median(third.values))
    first = float(levels(train.values, 3 * LAST_BLOCKS)[0][0])
    low, high = change.interval
    if level <= 0.0 or first - level < FELL_BEFORE * first or low is None or high is None:
        return
    still = abs(change.value) < FLAT_LEVEL * level or low <= 0.0 <= high
    if not still or max(abs(low), abs(high)) > FLAT_AT_MOST * level:
        return
    evidence = (
        f"{train.key} changed by {100 * change.value / level:+.2f} % over the last third of its rows (steps "
        f"{format_count(third.step(0))} to {format_count(third.step(-1))}), at {level:.4g}"
    )
    percent = change.map(lambda nats: 100.0 * nats / level)
    yield Finding(
        DIAGNOSES["plateau"], train.key, third.step(0), third.step(-1), percent.value, "%", evidence, percent.interval
    )


def _rate_fell(seen: Seen, third: Points) -> bool:
    """Return whether the learning rate had decayed, so that a flat loss is the end of the run and no plateau."""
    rate = seen.rate
    if not len(rate):
        return False
    return float(seen.rates[-len(third) :].mean()) < RATE_LEFT * float(rate.values.max())


def change_over(values: Floats) -> Estimate:
    """Return how much a straight line through values rises from the first to the last, with its interval at 95 %.

    The line is that of least squares through the medians of `LAST_BLOCKS` blocks, or through the values where there are
    fewer; its error is what they scatter about it, so that neighbours that vary together do not count twice.

    >>> round(change_over(np.arange(20.0)).value, 9)
    19.0
    """
    middles, starts = levels(values, LAST_BLOCKS)
    count = len(middles)
    if count < 3:
        return Estimate(math.nan)
    rows = np.diff(np.append(starts, len(values)))  # the last block may have fewer
    weight = rows / rows.sum()
    row = starts + (rows - 1) / 2.0
    row = row - float((weight * row).sum())
    spread = float((weight * row**2).sum())
    slope = float((weight * row * middles).sum()) / spread
    left = middles - float((weight * middles).sum()) - slope * row
    half = float(t_quantile(count - 1)) * math.sqrt(float((weight * left**2).sum()) / (count - 2) / spread)
    change = Estimate(slope, Interval(slope - half, slope + half))
    return change.map(lambda per_row: per_row * (len(values) - 1))
