"""Training and validation loss that are not the same quantity: other units, another scale, dropout, label smoothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import (
    FALL_FOR_RATIO,
    FEWEST_FOR_GAP,
    FEWEST_PAIRS,
    FEWEST_ROWS_FOR_GAP,
    GAP_LEVEL,
    SMOOTHED_FIT,
    SMOOTHED_GAP,
    SMOOTHED_MEETS,
    SMOOTHED_SHARES,
    STEADY_RATIO,
    UNIT_RATIO,
    WHOLE_RATIO,
)
from lossprobe.analysis.curve.noise import Floats, Ints
from lossprobe.analysis.curve.seen import Seen
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

MOST_GAP = 1.0 / 3.0  # of the training loss: more is a factor
TINY = 1e-9  # nats: a smaller loss has no ratio
MOST_ROWS = 25  # training rows on each side of an evaluation
UNITS = {math.log(2.0): "ln 2 = 0.693", 1.0 / math.log(2.0): "1 / ln 2 = 1.443"}


@dataclass(frozen=True)
class Pairs:
    """Both losses at the evaluations since the first training row.

    Attributes:
        steps: of the evaluations, int64 [N].
        validation: float64 [N].
        train: the mean of the training rows about each; neither early nor late if a row is the mean since the last.
        later: the mean of those after it alone, which no lag can make too high; NaN after the last row.
        error: the standard error of `train` by its noise, as a share of it.
    """

    steps: Ints
    validation: Floats
    train: Floats
    later: Floats
    error: float

    @property
    def ratio(self) -> Floats:
        """Validation loss over training loss."""
        return self.validation / self.train

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last step."""
        return int(self.steps[0]), int(self.steps[-1])


def pairs_of(seen: Seen) -> Pairs | None:
    """Return both losses where both are known and above 0; None where fewer than `FEWEST_PAIRS` are."""
    train, validation = seen.train, seen.validation
    if len(train) < FEWEST_PAIRS or len(validation) < FEWEST_PAIRS:
        return None
    near = np.searchsorted(train.steps, validation.steps, side="right")
    inside = (near > 0) & (validation.values > TINY)
    near, found = near[inside], validation.values[inside]
    if len(near) < FEWEST_PAIRS:
        return None
    reach = max(1, min(MOST_ROWS, int(np.median(np.diff(near))) // 4))
    sums = np.zeros(len(train) + 1)
    np.cumsum(train.values, out=sums[1:])
    low, high = np.maximum(near - reach, 0), np.minimum(near + reach, len(train))
    earlier = (sums[near] - sums[low]) / (near - low)
    later = np.divide(sums[high] - sums[near], high - near, out=np.full(len(near), np.nan), where=high > near)
    about = np.where(high > near, (earlier + later) / 2.0, earlier)
    if float(about.min()) <= TINY:
        return None
    error = train.noise / math.sqrt(2.0 * reach) / float(np.median(about))
    return Pairs(validation.steps[inside], found, about, later, error)


def measured_differently(seen: Seen) -> Iterator[Finding]:
    """Yield where validation and training loss differ by a factor of units, or by what no lag explains."""
    pairs = pairs_of(seen)
    if pairs is None:
        return
    diagnosis, (first, last) = DIAGNOSES["measured-differently"], pairs.span
    ratio = pairs.ratio
    middle = float(np.median(ratio))
    unit = next((name for factor, name in UNITS.items() if abs(middle / factor - 1.0) < UNIT_RATIO), None)
    if unit is not None and _steady(pairs) and _fell(pairs.validation):
        what = f"{middle:.3f} of {seen.train.key} at {len(ratio)} evaluations, which is {unit}: bits and nats"
        evidence = f"{seen.validation.key} is {what}"
        yield Finding(diagnosis, seen.validation.key, first, last, middle, "", evidence, _interval(middle, ratio))
        return
    if len(seen.train) < FEWEST_ROWS_FOR_GAP:
        return
    known = np.isfinite(pairs.later)
    later = pairs.later[known]
    gap = later - pairs.validation[known]
    if len(gap) >= FEWEST_FOR_GAP and float(gap.min()) > 0.0 and not _lags(gap, pairs.validation[known]):
        share = float(np.median(gap / later))
        if not GAP_LEVEL < share < MOST_GAP:
            return
        what = (
            f"{seen.validation.key} lies below the training rows that follow it at all {len(gap)} evaluations, by "
            f"{100 * share:.1f} % in the middle: no lag does that"
        )
        interval = _interval(100.0 * share, 100.0 * gap / later)
        yield Finding(diagnosis, seen.validation.key, first, last, 100.0 * share, "%", what, interval)


def accumulation_scale(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss is a whole number of times the validation loss, from first to last."""
    pairs = pairs_of(seen)
    if pairs is None:
        return
    times = pairs.train / pairs.validation
    middle = float(np.median(times))
    whole = round(middle)
    if whole < 2 or abs(middle / whole - 1.0) > WHOLE_RATIO or not _steady(pairs):
        return
    what = f"{seen.train.key} is {middle:.3f} times {seen.validation.key} at {len(times)} evaluations"
    first, last = pairs.span
    interval = _interval(middle, times)
    yield Finding(DIAGNOSES["accumulation-scale"], seen.train.key, first, last, middle, "", what, interval)


def smoothed_loss(seen: Seen) -> Iterator[Finding]:
    """Yield where the training loss depends on the validation loss as a label-smoothed loss on a plain one.

    With a share ε of the target spread over all V tokens it is (1 − ε)·L + ε·U, U the mean of −log p over the
    vocabulary, which is ln V at least: it falls 1 − ε times as fast, and meets the plain loss L where that is U.
    """
    pairs, uniform = pairs_of(seen), seen.uniform_nats
    if pairs is None or uniform is None or len(pairs.steps) < FEWEST_FOR_GAP or not _fell(pairs.validation):
        return
    slope, intercept = np.polyfit(pairs.validation, pairs.train, 1)
    share = 1.0 - float(slope)
    if not SMOOTHED_SHARES[0] <= share <= SMOOTHED_SHARES[1]:
        return
    gap = pairs.train - pairs.validation
    left = pairs.train - slope * pairs.validation - intercept
    meets = float(intercept) / share / uniform
    if (
        not SMOOTHED_MEETS[0] <= meets <= SMOOTHED_MEETS[1]
        or gap[-1] < SMOOTHED_GAP * pairs.validation[-1]
        or float(np.sqrt(np.mean(left**2))) > SMOOTHED_FIT * float(np.ptp(gap))
    ):
        return
    what = (
        f"{seen.train.key} is {gap[-1]:.3g} nats above {seen.validation.key} at step "
        f"{format_count(int(pairs.steps[-1]))} and "
        f"{gap[0]:.3g} at step {format_count(int(pairs.steps[0]))}: it falls {slope:.2f} times as fast, as with a "
        f"smoothing of {share:.2f}"
    )
    first, last = pairs.span
    yield Finding(DIAGNOSES["smoothed-loss"], seen.train.key, first, last, float(gap[-1]), "nats", what)


def _interval(size: float, each: Floats) -> Interval:
    """Return the interval of a number that was found at each evaluation."""
    half = float(t_quantile(len(each))) * float(np.std(each, ddof=1)) / math.sqrt(len(each))
    return Interval(size - half, size + half)


def _steady(pairs: Pairs) -> bool:
    """Return whether the ratio of both losses is the same at nine of ten evaluations but for little and for noise."""
    missed = np.quantile(np.abs(pairs.ratio / np.median(pairs.ratio) - 1.0), 0.9)
    return float(missed) < STEADY_RATIO + 2.0 * pairs.error


def _lags(gap: Floats, validation: Floats) -> bool:
    """Return whether a gap may be the lag of a running mean: no larger than what the loss fell over the last half."""
    return bool(gap[-1] <= validation[len(validation) // 2] - validation[-1])


def _fell(values: Floats) -> bool:
    """Return whether a loss fell enough for a ratio and a difference to be told apart."""
    return bool(values[0] - values.min() > FALL_FOR_RATIO * values[0])
