"""Learning rates that are too high or too low, where the log has them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.explosion import find_rise
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import (
    EARLY_ROWS,
    FULL_RATE,
    IDLE_ROWS,
    STEADY_FALL,
    UNTRAINED_NATS,
    UNTRAINED_SHARE,
    UNTRAINED_START,
    UNTRAINED_START_SHARE,
)
from lossprobe.analysis.curve.noise import levels, scale
from lossprobe.analysis.curve.seen import Seen
from lossprobe.units import format_count

BLOCKS = 24
FEWEST = 12  # rows


def too_high(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss rises far, early, and while the learning rate is near its highest."""
    train, rate = seen.train, seen.rate
    if not len(rate) or not len(train):
        return
    rise = find_rise(train)
    highest = float(rate.values.max())
    if rise is None or highest <= 0.0:
        return
    there = float(rate.at(train.steps[rise.first : rise.first + 1])[0])
    if there < FULL_RATE * highest or rise.first > EARLY_ROWS * len(train):
        return
    evidence = (
        f"{train.key} rose by {rise.size:.3g} nats from step {format_count(train.step(rise.first))} on, where "
        f"{rate.key} was {there:.3g} (highest {highest:.3g})"
    )
    first, last = train.step(rise.first), train.step(rise.last)
    yield Finding(DIAGNOSES["learning-rate-too-high"], rate.key, first, last, highest, "", evidence)


def too_low(seen: Seen) -> Iterator[Finding]:
    """Yield where the rate is 0 for long, or the loss still falls as fast at the end as at first, from a high level."""
    train, rate = seen.train, seen.rate
    if len(rate) < FEWEST or len(train) < FEWEST:
        return
    idle = rate.values == 0.0
    if float(idle.mean()) >= IDLE_ROWS:
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


def _straight(seen: Seen) -> Iterator[Finding]:
    """Yield where the loss falls from that of an untrained model in a straight line of the learning so far.

    The learning so far is the sum of the rates, so that neither a warm-up nor a decay bends the line.
    """
    train, rate, uniform = seen.train, seen.rate, seen.uniform_nats
    middles, starts = levels(train.values, BLOCKS)
    learned = np.cumsum(rate.at(train.steps))[np.append(starts[1:], len(train)) - 1]
    half = int(np.searchsorted(learned, learned[-1] / 2.0))
    if not 2 <= half < len(middles) - 2:
        return
    noise = max(scale(middles), train.noise / max(1.0, len(train) / BLOCKS) ** 0.5)
    start, middle, end = (
        float(middles[rows].mean()) for rows in (slice(2), slice(half - 1, half + 1), slice(-2, None))
    )
    untrained = UNTRAINED_START if uniform is None else UNTRAINED_START_SHARE * uniform
    high = UNTRAINED_NATS if uniform is None else UNTRAINED_SHARE * uniform
    if start < untrained or end < high or start - end < 4.0 * noise or middle - end < STEADY_FALL * (start - middle):
        return
    evidence = (
        f"{train.key} fell by {start - middle:.3g} nats in the first half of the learning (the sum of {rate.key}) and "
        "by "
        f"{middle - end:.3g} in the second, and is still {end:.4g}: it goes down in a straight line"
    )
    first, last, highest = train.step(0), train.step(-1), float(rate.values.max())
    yield Finding(DIAGNOSES["learning-rate-too-low"], rate.key, first, last, highest, "", evidence)
