"""TextSpans of bytes, kept in order to find out fast what lies in them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable


class TextSpans:
    """TextSpans [start, stop) that do not overlap, or hardly."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans = sorted(spans)

    def add(self, start: int, stop: int) -> None:
        """Add a span."""
        insort(self._spans, (start, stop))

    def holds(self, start: int, stop: int) -> bool:
        """Return whether a span lies in another one.

        >>> TextSpans([(0, 4), (8, 12)]).holds(9, 11), TextSpans([(0, 4), (8, 12)]).holds(3, 9)
        (True, False)
        """
        at = bisect_right(self._spans, (start, 1 << 62))
        return at > 0 and self._spans[at - 1][1] >= stop

    def touches(self, start: int, stop: int) -> bool:
        """Return whether a span has a byte of another one.

        >>> TextSpans([(0, 4), (8, 12)]).touches(3, 9), TextSpans([(0, 4), (8, 12)]).touches(4, 8)
        (True, False)
        """
        at = bisect_left(self._spans, (stop, 0))
        return at > 0 and self._spans[at - 1][1] > start

    def free(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of a span that lie in no other one.

        >>> TextSpans([(0, 4), (8, 12)]).free(3, 20)
        [(4, 8), (12, 20)]
        """
        near = self._near(start, stop)
        begins = [start, *(max(start, last) for _, last in near)]
        ends = [*(min(stop, first) for first, _ in near), stop]
        return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]

    def covered(self, start: int, stop: int) -> int:
        """Return how many bytes of a span lie in others."""
        near = self._near(start, stop)
        return sum(max(0, min(stop, last) - max(start, first)) for first, last in near)

    def _near(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the spans that can have bytes of a span."""
        at = bisect_right(self._spans, (start, 1 << 62))
        return self._spans[max(0, at - 1) : bisect_left(self._spans, (stop, 0))]
