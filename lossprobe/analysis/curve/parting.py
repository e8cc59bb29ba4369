"""Finds the step from which two runs part: their training losses differ beyond noise, and go on to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.noise import Floats, levels, scale
from lossprobe.analysis.curve.seen import Points
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.logs.log import LOSS, TRAIN, Log

FEWEST = 10  # common steps that differ
BLOCKS = 100
ALIKE = 4  # blocks: nearer ones may be alike


@dataclass(frozen=True)
class Parting:
    """Where two runs part.

    Attributes:
        step: the common step from which they differ.
        size: second less first, the mean difference from there on, nats.
        size_interval: its interval at 95 %.
        steps: common steps from there on.
        equal_until: the last common step up to which both are equal to the last digit; None where the first differs.
    """

    step: int
    size: float
    size_interval: Interval
    steps: int
    equal_until: int | None


def part(first: Log, second: Log) -> Parting | None:
    """Return where the training losses of two logs part on their common steps; None where they do not beyond noise.

    From the parting step to the end the mean difference is the largest in standard errors, of all steps that it could
    be. It must be more than 4.4 + 16 / B of them, B the rows or 100 if that is less: equal runs are said to part in
    about 1 of 100 cases, those with few rows and noise whose neighbours are alike among them
    (`tests/simulations/curve_truth.py`).
    """
    found = [series for log in (first, second) if (series := log.find(TRAIN, LOSS)) is not None]
    if len(found) < len((first, second)):
        return None
    one, other = map(Points.of, found)
    steps, rows, others = np.intersect1d(one.steps, other.steps, assume_unique=True, return_indices=True)
    difference = other.values[others] - one.values[rows]
    differs = np.flatnonzero(difference)
    if not len(differs) or len(difference) - differs[0] < FEWEST:
        return None
    start = int(differs[0])
    row = _parting_row(difference[start:])
    if row is None:
        return None
    after = difference[start + row :]
    mean = float(after.mean())
    count = min(len(after), BLOCKS)
    middles, _ = levels(after, BLOCKS)
    half = float(t_quantile(count)) * float(middles.std(ddof=1)) / math.sqrt(len(middles))
    equal = int(steps[start - 1]) if start else None
    return Parting(int(steps[start + row]), mean, Interval(mean - half, mean + half), len(after), equal)


def _parting_row(difference: Floats) -> int | None:
    """Return the row from which a difference is most surely not 0 on average; None where that may be chance."""
    errors = _errors_from_zero(difference)[: len(difference) - 2]
    row = int(np.argmax(errors))
    blocks = min(len(difference), BLOCKS)
    return row if errors[row] > (4.4 + 16.0 / blocks) * _noise(difference) else None


def _noise(values: Floats) -> float:
    """Return the standard deviation of rows as their means see it: more than one row's where neighbours are alike.

    It is the largest that means of 1/100, 1/50, … of the rows give, times the root of the rows of each.
    """
    found = []
    for blocks in (BLOCKS, BLOCKS // 2, BLOCKS // 4, BLOCKS // 8):
        width = max(1, len(values) // blocks)
        means = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        found.append(scale(means) * math.sqrt(width))
        if len(means) > 4 * ALIKE:
            found.append(scale(means, ALIKE) * math.sqrt(width))
    return max(found)


def _errors_from_zero(values: Floats) -> Floats:
    """Return how far the mean of the values from each row on is from 0, times the root of their number.

    >>> _errors_from_zero(np.array([0.0, 0.0, 2.0, 2.0])).round(3)
    array([2.   , 2.309, 2.828, 2.   ])
    """
    sums = np.cumsum(values[::-1])[::-1]
    found: Floats = np.abs(sums) / np.sqrt(np.arange(len(values), 0, -1))
    return found
