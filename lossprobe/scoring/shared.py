"""Batches of pairs of documents that start alike: their common start goes through the model once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lossprobe.plan.rows import SCORED, Rows
from lossprobe.plan.windows import Window

LEAST_SHARED = 8  # tokens; a shorter start is not worth a pass of its own
NEARLY = 0.8  # pairs share a batch if their starts are at least this share of the longest one

Placed = tuple[int, Window]


@dataclass(frozen=True)
class SharedBatch:
    """Pairs whose starts go through the model together, and then what follows.

    Attributes:
        shared: tokens of the start of each pair that go through the model once; what a pair shares beyond that is run
            with each side.
        starts: offset in the part of the first token of each pair.
        windows: both sides of all pairs without the start, each after the offset of its document's rows in the part.
        start_of: offset of a document's rows → the pair's place in `starts`.
        batch_size: most windows of a pass over what follows; None for as many as the device allows.
    """

    shared: int
    starts: list[int]
    windows: list[Placed]
    start_of: dict[int, int]
    batch_size: int | None

    @property
    def width(self) -> int:
        """Return the number of input tokens of the longest window, its start included."""
        return self.shared + max(window.stop - 1 - window.start for _, window in self.windows)


@dataclass(frozen=True)
class _Pair:
    shared: int
    sides: tuple[Placed, Placed]


def share_starts(
    rows: Rows, windows: list[Placed], batch_size: int | None, budget: int
) -> tuple[list[SharedBatch], list[Placed]]:
    """Return batches of pairs that start alike, longest start first, and the windows that are left.

    Documents 2 i and 2 i + 1 are a pair. Starts of nearly the same length share a batch, cut to the shortest one, so
    that none is padded.

    Args:
        rows: the part.
        windows: its windows; see `plan.rows.windows_of`.
        batch_size: most windows of a batch; None for as many as the budget allows.
        budget: most tokens of all starts of a batch.
    """
    pairs = sorted(_pairs(rows, windows), key=lambda pair: -pair.shared)
    batches, position = [], 0
    while position < len(pairs):
        longest = pairs[position].shared
        count = max(1, batch_size // 2 if batch_size else budget // longest)
        chosen = [pair for pair in pairs[position : position + count] if pair.shared >= NEARLY * longest]
        batches.append(_batch(chosen, batch_size))
        position += len(chosen)
    taken = {offset for batch in batches for offset in batch.start_of}
    return batches, [placed for placed in windows if placed[1].start or placed[0] not in taken]


def _batch(pairs: list[_Pair], batch_size: int | None) -> SharedBatch:
    shared = min(pair.shared for pair in pairs)
    placed = [(number, side) for number, pair in enumerate(pairs) for side in pair.sides]
    return SharedBatch(
        shared=shared,
        starts=[pair.sides[0][0] for pair in pairs],
        windows=[(offset, replace(window, start=shared)) for _, (offset, window) in placed],
        start_of={offset: number for number, (offset, _) in placed},
        batch_size=batch_size,
    )


def _pairs(rows: Rows, windows: list[Placed]) -> Iterator[_Pair]:
    """Yield the pairs whose first windows both lie in the part and start with enough common tokens."""
    first = {int(rows.document[offset]): (offset, window) for offset, window in windows if window.start == 0}
    for document, chosen in first.items():
        rejected = first.get(document + 1)
        if document % 2 or rejected is None:
            continue
        shared = min(_common(rows, chosen, rejected), *(_before_scored(rows, side) for side in (chosen, rejected)))
        if shared >= LEAST_SHARED:
            yield _Pair(shared, (chosen, rejected))


def _common(rows: Rows, one: Placed, other: Placed) -> int:
    """Return how many tokens two windows that start their documents have in common at the start."""
    size = min(one[1].stop, other[1].stop)
    same = rows.token_id[one[0] : one[0] + size] == rows.token_id[other[0] : other[0] + size]
    return size if same.all() else int(np.argmin(same))


def _before_scored(rows: Rows, placed: Placed) -> int:
    """Return how many tokens of a window come before the one from which its first scored token is predicted."""
    offset, window = placed
    scored = rows.unscored[offset + window.first_scored : offset + window.stop] == SCORED
    return window.first_scored + int(np.argmax(scored)) - 1
