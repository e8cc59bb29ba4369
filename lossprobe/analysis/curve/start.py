"""The first loss against that of a model that knows nothing, and a loss that ends there."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import (
    ABOVE_UNIFORM,
    BELOW_UNIFORM,
    EQUAL_NATS,
    FEWEST_EQUAL,
    FIRST_STEPS,
    NEAR_UNIFORM,
    NEAR_WHOLE,
    NO_PRETRAINED,
    ROSE_TO_UNIFORM,
    TIMES_QUIETER,
)
from lossprobe.analysis.curve.noise import scale
from lossprobe.analysis.curve.non_finite import trailing
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.units import format_count, plural


def wrong_start(seen: Seen) -> Iterator[Finding]:
    """Yield where the first loss lies above ln V, or below it by what neither chance nor pretraining explains."""
    uniform = seen.uniform_nats
    points = _earliest(seen)
    if uniform is None or not len(points):
        return
    first, step = float(points.values[0]), points.step(0)
    noise = 3.0 * points.noise
    above, below = first - uniform - ABOVE_UNIFORM, uniform - max(BELOW_UNIFORM, noise) - first
    if above > noise:
        where = "above"
    elif below > 0.0 and step <= FIRST_STEPS and first > NO_PRETRAINED * uniform:
        where = "below"
    else:
        return
    evidence = (
        f"{points.key} is {first:.4g} at step {format_count(step)}, {abs(first - uniform):.3g} nats {where} "
        f"ln {format_count(seen.vocabulary or 0)} = {uniform:.4g}{_times(first, uniform)}"
    )
    yield Finding(DIAGNOSES["wrong-start"], points.key, step, step, first - uniform, "nats", evidence)


def _times(first: float, uniform: float) -> str:
    """Return what a first loss that is a whole number of times ln V may be, in words; "" for any other."""
    ratio = first / uniform if uniform > 0.0 else 0.0
    whole = round(ratio)
    if whole < 2 or abs(ratio - whole) > NEAR_WHOLE:
        return ""
    return f", {ratio:.2f} times as much: perhaps the sum over {whole} micro-batches, not divided by their number"


def _earliest(seen: Seen) -> Points:
    """Return the loss that was measured first: validation before training where the log has it, else training."""
    train, validation = seen.train, seen.validation
    if not len(train) or (len(validation) and validation.step(0) < min(train.step(0), FIRST_STEPS)):
        return validation
    return train


def uniform(seen: Seen) -> Iterator[Finding]:
    """Yield where the last losses are all the same: the model gives every token the same probability."""
    train, known = seen.train, seen.uniform_nats
    if not len(train):
        return
    last = float(train.values[-1])
    count = trailing((train.values >= last - EQUAL_NATS) & (train.values <= last + EQUAL_NATS))
    if count < FEWEST_EQUAL or last <= 0.0:
        return
    if known is not None:
        if abs(last - known) > NEAR_UNIFORM:
            return
    elif not _rose_to(train, count, last):
        return
    size = seen.vocabulary if known is not None else round(math.exp(last))
    row = len(train) - count
    evidence = (
        f"{train.key} is {last:.6g} in the last {plural(count, 'row')}, from step {format_count(train.step(row))} on, "
        f"whatever the text: ln {format_count(size or 0)}"
    )
    share = 100.0 * count / len(train)
    yield Finding(DIAGNOSES["uniform"], train.key, train.step(row), train.step(-1), share, "% of rows", evidence)


def _rose_to(train: Points, count: int, last: float) -> bool:
    """Return whether a loss varied from row to row, was lower, and rose to the value that it does not leave.

    Losses of different texts differ unless every token costs the same, so that no vocabulary need be known.
    """
    before = train.values[: len(train) - count]
    if len(before) < 2 or float(before.min()) > last - ROSE_TO_UNIFORM:
        return False
    varied = scale(before) if len(before) > 2 else float(np.ptp(before))
    spread = float(np.ptp(train.values[-count:]))
    return varied > TIMES_QUIETER * spread
