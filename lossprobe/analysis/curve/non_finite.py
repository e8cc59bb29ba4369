"""Losses that are not finite, and training that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import BAD_GRADIENTS, FEWEST_ZEROS, HALVINGS, LOW_SCALE
from lossprobe.analysis.curve.noise import Floats
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.logs.log import GRADIENT_NORM, LOSS, TRAIN, Series
from lossprobe.units import format_count, plural

LOSS_SCALE = "loss_scale"


def not_finite(seen: Seen) -> Iterator[Finding]:
    """Yield each loss that is NaN or infinite somewhere; the gradient norm where it is so too often for a skipped step.

    Loss scaling skips a step whose gradients are infinite, a few at the start and one now and then: no fault.
    """
    losses = [series for series in seen.log.series if series.name == LOSS]
    bad = [series for series in losses if not np.isfinite(series.values).all()]
    yield from map(_not_finite, bad)
    gradient = seen.log.find(TRAIN, GRADIENT_NORM)
    if gradient is not None and not bad and len(gradient.values):
        wrong = ~np.isfinite(gradient.values)
        wrong[: int(np.argmin(wrong))] = False
        if wrong.sum() >= FEWEST_ZEROS and (wrong.mean() > BAD_GRADIENTS or wrong[-FEWEST_ZEROS:].all()):
            yield _not_finite(gradient)


def _not_finite(series: Series) -> Finding:
    wrong = ~np.isfinite(series.values)
    rows = np.flatnonzero(wrong)
    first, last = int(series.steps[rows[0]]), int(series.steps[rows[-1]])
    kind = "NaN" if np.isnan(series.values[rows[0]]) else "infinite"
    share = f"{plural(len(rows), 'row')} of {format_count(len(wrong))}"
    if rows[0]:
        before = rows[0] - 1
        known = f"the last finite value before it is {series.values[before]:.4g} at step {_step(series.steps[before])}"
    else:
        known = "no row before it is finite"
    after = "" if wrong[-1] else f"; it is finite again after step {format_count(last)}"
    evidence = f"{series.key} is {kind} at step {format_count(first)} ({share} are not finite); {known}{after}"
    return Finding(
        DIAGNOSES["not-finite"], series.key, first, last, 100.0 * len(rows) / len(wrong), "% of rows", evidence
    )


def _step(step: np.int64) -> str:
    return format_count(int(step))


def trailing(rows: np.ndarray) -> int:
    """Return how many of the last rows are all true.

    >>> trailing(np.array([True, False, True, True]))
    2
    """
    wrong = np.flatnonzero(~rows)
    return len(rows) if not len(wrong) else len(rows) - 1 - int(wrong[-1])


def nothing_trained(seen: Seen) -> Iterator[Finding]:
    """Yield where the loss is 0.0 to the end, and the gradient norm too where the log has it."""
    train, gradient = seen.train, seen.gradient
    zero = train.values == 0.0
    if len(gradient) and zero.any():
        zero &= gradient.at(train.steps) == 0.0
    count = trailing(zero)
    if count < FEWEST_ZEROS or (count < len(train) and not len(gradient) and _faded(train.values, count)):
        return
    row = len(train) - count
    beside = "the loss and the gradient norm are" if len(gradient) else "the loss is"
    evidence = f"{beside} exactly 0 in the last {plural(count, 'row')}, from step {format_count(train.step(row))} on"
    share = 100.0 * count / len(train)
    yield Finding(
        DIAGNOSES["nothing-trained"], train.key, train.step(row), train.step(-1), share, "% of rows", evidence
    )


def _faded(values: Floats, zeros: int) -> bool:
    """Return whether a loss came down to its last zeros step by step, so that they are small losses, rounded."""
    return bool(np.min(values[: len(values) - zeros]) < 0.05)


def overflow(seen: Seen) -> Iterator[Finding]:
    """Yield where the scale of the loss in float16 fell to almost nothing."""
    scale = next((Points.of(series) for series in seen.log.series if _is_scale(series)), None)
    if scale is None or len(scale) < HALVINGS:
        return
    falls = np.flatnonzero(np.diff(scale.values) < 0.0)
    highest, last = float(scale.values.max()), float(scale.values[-1])
    if len(falls) < HALVINGS or last >= LOW_SCALE or last > highest / 2.0**HALVINGS:
        return
    evidence = (
        f"{scale.key} fell {plural(len(falls), 'time')}, from {highest:,.10g} to {last:,.10g}: "
        "gradients overflowed float16 again and again"
    )
    first, end = scale.step(int(falls[0]) + 1), scale.step(int(falls[-1]) + 1)
    yield Finding(DIAGNOSES["fp16-overflow"], scale.key, first, end, float(len(falls)), "falls", evidence)


def _is_scale(series: Series) -> bool:
    return series.name.rpartition("/")[2].lower().replace(" ", "_").replace("-", "_") == LOSS_SCALE
