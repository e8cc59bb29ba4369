"""Intervals of shares: Wilson's for one share, Newcombe's for the difference of two."""

from __future__ import annotations

import math

from scipy.special import ndtri

from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import CONFIDENCE

QUANTILE = float(ndtri((1 + CONFIDENCE) / 2))


def wilson(share: float, count: int) -> Estimate:
    """Return a share of independent cases with its interval, which holds for few cases and near 0 and 1.

    (p + z² / 2n ± z √(p (1 − p) / n + z² / 4n²)) / (1 + z² / n); Wilson 1927.

    Args:
        share: the share, 0 to 1.
        count: how many independent cases it is of; with none there is no interval.

    >>> wilson(0.8, 10).interval.shown(".4f")
    '[0.4902, 0.9433]'
    """
    if not count:
        return Estimate(share, NO_INTERVAL)
    z2 = QUANTILE**2 / count
    centre = share + z2 / 2
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return Estimate(share, Interval((centre - half) / (1 + z2), (centre + half) / (1 + z2)).within(0.0, 1.0))


def newcombe(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent shares, first − second, with its interval (Newcombe 1998, method 10).

    His example, 56 of 70 against 48 of 80, has 0.0524 to 0.3339:

    >>> newcombe(wilson(56 / 70, 70), wilson(48 / 80, 80)).interval.shown("+.4f")
    '[+0.0524, +0.3339]'
    """
    difference = first.value - second.value
    if first.interval.low is None or second.interval.low is None:
        return Estimate(difference)
    assert first.interval.high is not None
    assert second.interval.high is not None
    below = math.hypot(first.value - first.interval.low, second.interval.high - second.value)
    above = math.hypot(first.interval.high - first.value, second.value - second.interval.low)
    return Estimate(difference, Interval(difference - below, difference + above))
