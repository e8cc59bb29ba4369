"""The one shape of an interval and of a number that has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Interval(NamedTuple):
    """The two ends of an interval; None where an end cannot be given, such as with fewer than two clusters.

    A result holds a number `x` and its interval as `x` and `x_interval`; JSON shows the interval as [low, high].
    """

    low: float | None
    high: float | None

    def map(self, transform: Callable[[float], float]) -> Interval:
        """Return the interval of a number that is a rising function of this one.

        >>> Interval(1.0, 2.0).map(lambda end: 10 * end), Interval(None, None).map(abs)
        (Interval(low=10.0, high=20.0), Interval(low=None, high=None))
        """
        low, high = (None if end is None else transform(end) for end in self)
        return Interval(low, high)

    def within(self, least: float, most: float) -> Interval:
        """Return the interval cut to what its number can be.

        >>> Interval(-0.25, 0.5).within(0.0, 1.0)
        Interval(low=0.0, high=0.5)
        """
        if self.low is None or self.high is None:
            return self
        return Interval(max(least, self.low), min(most, self.high))

    def shown(self, form: str) -> str:
        """Return the interval for people, both ends in a format such as ".4f", or "no interval".

        >>> Interval(-0.25, 0.5).shown("+.2f"), Interval(None, None).shown("+.2f")
        ('[-0.25, +0.50]', 'no interval')
        """
        if self.low is None or self.high is None:
            return "no interval"
        return f"[{self.low:{form}}, {self.high:{form}}]"


NO_INTERVAL = Interval(None, None)


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    interval: Interval = NO_INTERVAL

    def map(self, transform: Callable[[float], float]) -> Estimate:
        """Return the estimate of a number that is a rising function of this one."""
        return Estimate(transform(self.value), self.interval.map(transform))

    def within(self, least: float, most: float) -> Estimate:
        """Return the estimate with its interval cut to what the number can be."""
        return Estimate(self.value, self.interval.within(least, most))
