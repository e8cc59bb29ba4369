"""Validation loss that rises while training loss falls."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import FEWEST_AFTER, FEWEST_FOR_NOISE, OVERFIT_LEVEL
from lossprobe.analysis.curve.noise import Floats, levels, scale, scale_of
from lossprobe.analysis.curve.seen import Seen
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count, plural

ONE_SIDED = 1.645  # the quantile of a normal distribution that 5 % lie above
MOST_RANKED = 100
FEWEST_DIFFERENCES = 3


def over_fitting(seen: Seen) -> Iterator[Finding]:
    """Yield where the validation loss rises after its lowest by more than its noise, and the training loss does not."""
    points = seen.validation
    if len(points) <= FEWEST_AFTER or float(points.values.min()) == 0.0:
        return
    row = int(np.argmin(points.values))
    lowest, after = float(points.values[row]), points.values[row + 1 :]
    if len(after) < FEWEST_AFTER:
        return
    last = after[-max(FEWEST_AFTER, len(after) // 3) :]
    rise = float(last.mean()) - lowest
    noise, rows = _noise(points.values, row)
    half = float(t_quantile(max(2, rows - 2))) * noise * math.sqrt(1.0 + 1.0 / len(last))
    # The lowest of many evaluations lies below their curve by chance; those after it do not rise by chance.
    chance = 0.0 if _rises(after) else noise * math.sqrt(2.0 * math.log(len(points)))
    if rise < max(OVERFIT_LEVEL * abs(lowest), half + chance) or _train_rises(seen, points.step(row), rise):
        return
    interval = Interval(rise - half, rise + half) if noise > 0.0 else NO_INTERVAL
    evidence = (
        f"{points.key} was lowest at step {format_count(points.step(row))} ({lowest:.4f}); the last "
        f"{plural(len(last), 'evaluation')} lie {rise:.4f} above "
        f"({100 * rise / abs(lowest):.1f} %){_train(seen, points.step(row))}"
    )
    yield Finding(
        DIAGNOSES["over-fitting"], points.key, points.step(row), points.step(-1), rise, "nats", evidence, interval
    )


def _rises(values: Floats) -> bool:
    """Return whether values rise from the first to the last more than chance orders them, at 95 %.

    That is Kendall's S, the pairs in rising order less those in falling order, against its variance
    n (n − 1) (2n + 5) / 18 (Mann 1945, Econometrica 13, 245-259); four values must all rise.

    >>> _rises(np.array([1.0, 2.0, 3.0, 4.0])), _rises(np.array([1.0, 3.0, 2.0, 4.0]))
    (True, False)
    """
    middles, _ = levels(values, MOST_RANKED)
    count = len(middles)
    ordered = float(np.triu(np.sign(middles[None, :] - middles[:, None])).sum())
    return ordered - 1.0 > ONE_SIDED * math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)


def _noise(values: Floats, lowest: int) -> tuple[float, int]:
    """Return the noise of evaluations about their curve near and after the lowest, and the rows that it is from.

    Early evaluations fall so steeply that their curve is not straight over three of them. A step up after the lowest,
    as where an epoch begins, is no noise: two second differences reach over it and do not count, if others are left.
    """
    begin = max(0, min(lowest - 1, len(values) - FEWEST_FOR_NOISE - 2))
    differences = np.diff(values[begin:], 2)
    middle = begin + 1 + np.arange(len(differences))  # the row in the middle of each
    kept = differences[(middle != lowest) & (middle != lowest + 1)]
    if len(kept) < FEWEST_DIFFERENCES:
        return scale(values[begin:]), len(values) - begin
    return scale_of(kept), len(kept) + 2


def _train_change(seen: Seen, step: int) -> tuple[float, float, float] | None:
    """Return the training loss about a step and at the end, and the standard error of their difference, nats.

    Both are medians of up to a tenth of the rows, whose error is 1.25 times that of a mean.
    """
    train = seen.train_like_validation
    near = int(np.searchsorted(train.steps, step))
    if len(train) < 3 or near >= len(train) - 1:
        return None
    width = max(1, min(len(train) // 10, (len(train) - near) // 2))
    before = train.values[max(0, near - width // 2) : near + width // 2 + 1]
    error = 1.25 * train.noise * math.sqrt(1.0 / len(before) + 1.0 / width)
    return float(np.median(before)), float(np.median(train.values[-width:])), error


def _train_rises(seen: Seen, step: int, rise: float) -> bool:
    """Return whether the training loss may have risen by half as much, so that it is not the validation loss alone."""
    change = _train_change(seen, step)
    if change is None:
        return False
    before, after, error = change
    return after - before + error > 0.5 * rise


def _train(seen: Seen, step: int) -> str:
    change = _train_change(seen, step)
    return (
        ""
        if change is None
        else f", while {seen.train_like_validation.key} went from {change[0]:.4g} to {change[1]:.4g}"
    )
