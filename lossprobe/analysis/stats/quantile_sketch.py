"""Quantiles of a stream of numbers in bounded memory: exact while they are few, then to 1 part in 4,096."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.stats.resampling import Floats

EXACT = 1 << 20  # 8 MiB of float64
DROPPED_BITS = 12  # of a float32's 32: a bin keeps sign, exponent and 11 bits of the mantissa
BINS = 1 << (32 - DROPPED_BITS)
SIGN = np.uint32(1 << 31)


class QuantileSketch:
    """Quantiles of numbers that come in batches; infinities are legal, NaN is not.

    Up to 1,048,576 numbers are kept and every quantile is exact. From then on they are counted in bins whose width is
    at most 1/2,048 of their value, so that a quantile is right to 1/4,096 (0.025 %) of itself; 0 and the infinities
    have bins of their own. Smallest and largest stay exact.
    """

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._counts: npt.NDArray[np.int64] | None = None
        self._size = 0
        self._ends = (math.inf, -math.inf)

    def add(self, values: Floats) -> None:
        """Add a batch of numbers, float64 [n]."""
        if not len(values):
            return
        self._ends = (min(self._ends[0], float(values.min())), max(self._ends[1], float(values.max())))
        self._size += len(values)
        self._kept.append(values)
        if self._size > EXACT:
            self._counts = np.zeros(BINS, np.int64) if self._counts is None else self._counts
            for kept in self._kept:
                bins, counts = np.unique(_bins(kept), return_counts=True)
                self._counts[bins] += counts
            self._kept = []

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Return the quantile of each share, linear between the two nearest ranks; NaN without any number.

        >>> sketch = QuantileSketch()
        >>> sketch.add(np.array([4.0, 1.0, 2.0]))
        >>> sketch.quantiles([0.0, 0.5, 0.75, 1.0])
        [1.0, 2.0, 3.0, 4.0]
        """
        if not self._size:
            return [math.nan] * len(shares)
        places = [share * (self._size - 1) for share in shares]
        ranks = [rank for place in places for rank in (math.floor(place), math.ceil(place))]
        values = self._at(np.array(ranks, np.int64))
        return [
            _between(float(low), float(high), place - math.floor(place))
            for place, low, high in zip(places, values[::2], values[1::2], strict=True)
        ]

    def _at(self, ranks: npt.NDArray[np.int64]) -> Floats:
        """Return the numbers of some ranks from 0."""
        if self._counts is None:
            ordered: Floats = np.partition(np.concatenate(self._kept), np.unique(ranks))
            return ordered[ranks]
        values = _values(np.searchsorted(np.cumsum(self._counts), ranks, side="right"))
        values = np.clip(values, *self._ends)
        values[ranks == 0], values[ranks == self._size - 1] = self._ends
        return values


def _bins(values: Floats) -> npt.NDArray[np.uint32]:
    """Return the bin of each number: the leading bits of its float32, flipped so that bins ascend as the numbers do."""
    bits = values.astype(np.float32).view(np.uint32)
    flipped: npt.NDArray[np.uint32] = np.where(bits & SIGN, ~bits, bits | SIGN) >> np.uint32(DROPPED_BITS)
    return flipped


def _values(bins: npt.NDArray[np.int64]) -> Floats:
    """Return a number inside each bin, at most 1/4,096 from any other: just beside the end that is nearer to 0."""
    nearest = np.where(bins >= BINS // 2, 0, (1 << DROPPED_BITS) - 1)
    key = ((bins << DROPPED_BITS) | nearest).astype(np.uint32)
    ends = np.where(key & SIGN, key ^ SIGN, ~key).view(np.float32).astype(float)
    values: Floats = ends * (1.0 + 2.0**-DROPPED_BITS)
    return values


def _between(low: float, high: float, fraction: float) -> float:
    """Return the point between two numbers; where exactly one is infinite, the one that the fraction touches."""
    if low == high or fraction == 0.0:
        return low
    return low + (high - low) * fraction
