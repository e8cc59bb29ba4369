"""Learning rates that are too high or too low, where the log has them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.explosion import crossings, find_rise
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import (
    ABOVE_START,
    BENT,
    EARLY_ROWS,
    FELL_BEFORE,
    FULL_RATE,
    IDLE_ROWS,
    MOST_FALLEN,
    SPIKE_NOISE,
    STUCK_LEVEL,
    STUCK_ROWS,
    UNTRAINED_NATS,
    UNTRAINED_SHARE,
    UNTRAINED_START,
    UNTRAINED_START_SHARE,
)
from lossprobe.analysis.curve.noise import Floats, levels, scale
from lossprobe.analysis.curve.seen import Seen
from lossprobe.analysis.curve.trend import change_over
from lossprobe.units import format_count

BLOCKS = 24
FEWEST = 12  # rows
FEWEST_RATES = 5
MOST_DECIMALS, MOST_VALUES = 10, 10_000  # in which the decimals of printed rates are looked for


def too_high(seen: Seen) -> Iterator[Finding]:
    """Yield where, at a rate near its highest, the training loss rises far and early, or stays at a high level."""
    train, rate = seen.train, seen.rate
    if len(rate) < FEWEST_RATES or len(train) < FEWEST_RATES or float(rate.values.max()) <= 0.0:
        return
    rise = find_rise(train)
    highest = float(rate.values.max())
    there = 0.0 if rise is None else float(seen.rates[rise.first])
    if rise is None:
        yield from (_above_start(seen) or _stuck(seen))
    elif there >= FULL_RATE * highest and rise.first <= EARLY_ROWS * len(train):
        evidence = (
            f"{train.key} rose by {rise.size:.3g} nats from step {format_count(train.step(rise.first))} on, where "
            f"{rate.key} was {there:.3g} (highest {highest:.3g})"
        )
        first, last = train.step(rise.first), train.step(rise.last)
        yield Finding(DIAGNOSES["learning-rate-too-high"], rate.key, first, last, highest, "", evidence)


def _above_start(seen: Seen) -> list[Finding]:
    """Return where the loss of an untrained model rises far above its first value as the rate reaches its highest."""
    train = seen.train
    rates = seen.rates
    first, highest = float(train.values[0]), float(rates.max())
    early = rates[: int(EARLY_ROWS * len(train)) + 1] >= FULL_RATE * highest
    above = crossings(train.values, (1.0 + ABOVE_START) * first + SPIKE_NOISE * train.noise)  # no single spikes
    above = above[above < len(early)]
    above = above[early[above]]
    if not len(above) or first < _untrained_start(seen):
        return []
    top = int(above[np.argmax(train.values[above])])
    evidence = (
        f"{train.key} was {train.values[top]:.4g} at step {format_count(train.step(top))}, above its first value of "
        f"{first:.4g}, where {seen.rate.key} was {rates[top]:.3g} (highest {highest:.3g})"
    )
    name, last = "learning-rate-too-high", train.step(int(above[-1]))
    return [Finding(DIAGNOSES[name], seen.rate.key, train.step(int(above[0])), last, highest, "", evidence)]


def _untrained_start(seen: Seen) -> float:
    """Return the least loss that a model begins with that knows nothing."""
    return UNTRAINED_START if seen.uniform_nats is None else UNTRAINED_START_SHARE * seen.uniform_nats


def _stuck(seen: Seen) -> list[Finding]:
    """Return where the loss stays at that of tokens without their context while the rate is high, and then falls."""
    train, rates = seen.train, seen.rates
    highest = float(rates.max())
    if highest <= 0.0:  # the log has rates, but at none of these rows
        return []
    full = np.flatnonzero(rates >= FULL_RATE * highest)
    peak, end = int(np.argmax(rates)), int(full[-1]) + 1
    if peak > EARLY_ROWS * len(train) or end - peak < max(FEWEST, STUCK_ROWS * len(train)) or end == len(train):
        return []
    # The fall to that level takes a few rows of warm-up more.
    high = train.values[peak + (end - peak) // 5 : end]
    level, change = float(np.median(high)), change_over(high)
    after = train.values[end:]
    last = float(np.median(after[-max(1, len(after) // 3) :]))
    error = train.noise * math.sqrt(1.0 / len(high) + 3.0 / len(after))
    if level < seen.single_token_nats or -change.value > STUCK_LEVEL * level:
        return []
    if (
        level - last < max(4.0 * error, 1.5 * abs(change.value))
        or train.values[0] - level < FELL_BEFORE * train.values[0]
    ):
        return []
    evidence = (
        f"{train.key} stayed at {level:.4g} from step {format_count(train.step(peak))} to "
        f"{format_count(train.step(end - 1))}, "
        f"where {seen.rate.key} was over half of its highest ({highest:.3g}), and fell to {last:.4g} only as the rate "
        "went down"
    )
    first, until = train.step(peak), train.step(end - 1)
    return [Finding(DIAGNOSES["learning-rate-too-high"], seen.rate.key, first, until, highest, "", evidence)]


def too_low(seen: Seen) -> Iterator[Finding]:
    """Yield where the rate is 0 for long, or the loss falls in a straight line and stays high."""
    train, rate = seen.train, seen.rate
    if len(rate) < FEWEST or len(train) < FEWEST:
        return
    idle = rate.values == 0.0
    if float(idle.mean()) >= IDLE_ROWS:
        if _rounded_to_zero(seen, idle):
            return
        rows = np.flatnonzero(idle)
        evidence = (
            f"{rate.key} is 0 in {100 * idle.mean():.0f} % of the rows, first at step "
            f"{format_count(rate.step(int(rows[0])))}: "
            "nothing is learned there"
        )
        first, last = rate.step(int(rows[0])), rate.step(int(rows[-1]))
        percent = 100.0 * float(idle.mean())
        yield Finding(DIAGNOSES["learning-rate-too-low"], rate.key, first, last, percent, "% of rows", evidence)
        return
    yield from _straight(seen)


def _rounded_to_zero(seen: Seen, idle: npt.NDArray[np.bool_]) -> bool:
    """Return whether rates of 0 may be small ones that the log prints with too few decimals.

    So they may where the rates beside them are the smallest that the log can print, and it has higher ones. Where it
    has no higher one, the loss decides: it does not fall where nothing is learned.
    """
    values, train = seen.rate.values, seen.train
    highest, unit = float(values.max()), printed_unit(values)
    beside = np.append(values[1:][idle[:-1] & ~idle[1:]], values[:-1][idle[1:] & ~idle[:-1]])
    if unit > 0.0 and highest > 1.5 * unit:
        return bool(len(beside)) and bool((beside < 1.5 * unit).all())
    there = train.values[seen.rates == 0.0]
    if highest > 1.5 * unit or len(there) < FEWEST:
        return False
    _, high = change_over(there).interval
    return high is not None and high < 0.0


def printed_unit(values: Floats) -> float:
    """Return the smallest number that some decimals can tell from 0, if values are printed with so many; else 0.0.

    >>> printed_unit(np.array([0.0, 3e-8, 1e-8])), printed_unit(np.array([1e-5, 2.5e-5 / 3]))
    (1e-08, 0.0)
    """
    some = values[:: max(1, len(values) // MOST_VALUES)]
    for decimals in range(MOST_DECIMALS + 1):
        unit = float(f"1e-{decimals}")
        if some.max() > unit / 2.0 and np.abs(some - np.round(some, decimals)).max() < unit / 1000.0:
            return unit
    return 0.0


def _straight(seen: Seen) -> Iterator[Finding]:
    """Yield where the loss falls from that of an untrained model in a straight line of the learning so far.

    The learning so far is the sum of the rates, so that neither a warm-up nor a decay bends the line.
    """
    train, rate, uniform = seen.train, seen.rate, seen.uniform_nats
    middles, starts = levels(train.values, BLOCKS)
    learned = np.cumsum(seen.rates)[np.append(starts[1:], len(train)) - 1]
    noise = max(scale(middles), train.noise / max(1.0, len(train) / BLOCKS) ** 0.5)
    start, end = float(middles[:2].mean()), float(middles[-2:].mean())
    high = UNTRAINED_NATS if uniform is None else UNTRAINED_SHARE * uniform
    fall = start - end
    if start < _untrained_start(seen) or end < high or not 4.0 * noise < fall < MOST_FALLEN * start:
        return
    slope, level = np.polyfit(learned, middles, 1)
    missed = np.append(middles - level - slope * learned, train.values[0] - level - slope * learned[0])
    if float(np.abs(missed).max()) > BENT * fall + 3.0 * noise:
        return
    evidence = (
        f"{train.key} fell from {start:.4g} to {end:.4g} in a straight line of the learning so far (the sum of "
        f"{rate.key}, "
        f"at most {float(rate.values.max()):.3g})"
    )
    first, last, highest = train.step(0), train.step(-1), float(rate.values.max())
    yield Finding(DIAGNOSES["learning-rate-too-low"], rate.key, first, last, highest, "", evidence)
