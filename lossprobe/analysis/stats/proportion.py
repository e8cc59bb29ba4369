"""Intervals of shares: Wilson's for one share, Newcombe's for the difference of two."""

from __future__ import annotations

import math

from scipy.special import ndtri

from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import CONFIDENCE

QUANTILE = float(ndtri((1 + CONFIDENCE) / 2))


def wilson(share: float, count: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return a share of independent cases with its interval, which holds for few cases and near 0 and 1.

    (p + z² / 2n ± z √(p (1 − p) / n + z² / 4n²)) / (1 + z² / n); Wilson 1927.

    Args:
        share: the share, 0 to 1.
        count: how many independent cases it is of; with none there is no interval.
        confidence: level of the interval.

    >>> wilson(0.8, 10).interval.shown(".4f")
    '[0.4902, 0.9433]'
    """
    if not count:
        return Estimate(share, NO_INTERVAL)
    z2 = float(ndtri((1 + confidence) / 2)) ** 2 / count
    centre = share + z2 / 2
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return Estimate(share, Interval((centre - half) / (1 + z2), (centre + half) / (1 + z2)).within(0.0, 1.0))


def wilson_at(share: Estimate, confidence: float) -> Estimate:
    """Return Wilson's interval of the same cases at another level; none where the share has none.

    The square of half its length h is (a p (1 − p) + a² / 4) / (1 + a)² with a = z² / n, which is solved for a.

    >>> wilson_at(wilson(0.8, 10), 0.99).interval.shown(".4f"), wilson(0.8, 10, 0.99).interval.shown(".4f")
    ('[0.4008, 0.9599]', '[0.4008, 0.9599]')
    """
    if share.interval.low is None or share.interval.high is None:
        return share
    square, spread = ((share.interval.high - share.interval.low) / 2) ** 2, share.value * (1 - share.value)
    lead, middle = square - 0.25, 2 * square - spread
    a = (-middle - math.sqrt(max(0.0, middle**2 - 4 * lead * square))) / (2 * lead)
    return wilson(share.value, QUANTILE**2 / a, confidence)


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
