"""Reference implementation of spans, on a whole document at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def exact_stops(pieces: Sequence[bytes], text: bytes) -> list[int] | None:
    """Return the ends of spans if the pieces joined are the text, or a blank and the text; else None."""
    joined = b"".join(pieces)
    prefix = 1 if len(joined) == len(text) + 1 and joined.startswith(b" ") else 0
    if joined[prefix:] != text:
        return None
    stops, at = [], -prefix
    for piece in pieces:
        at += len(piece)
        stops.append(max(at, 0))
    return stops


def aligned_stops(offsets: Sequence[tuple[int, int]], text: str) -> tuple[list[int], int, bool]:
    """Return spans made from offsets in characters.

    Returns:
        The end of each span in bytes, the number of bytes that no token covers, and whether the offsets ascend.
    """
    byte_at = np.cumsum([0, *(len(character.encode()) for character in text)])
    starts = [int(byte_at[start]) for start, _ in offsets]
    stops = [int(byte_at[stop]) for _, stop in offsets]
    tiles = starts == sorted(starts) and stops == sorted(stops)
    ends = np.maximum.accumulate(np.array(stops, dtype=np.int64)).tolist()
    covered = sum(max(end - max(start, at), 0) for start, at, end in zip(starts, [0, *ends], ends, strict=False))
    shared = list(ends)
    first = 0
    for index in range(1, len(ends) + 1):
        if index < len(ends) and (starts[index], ends[index]) == (starts[first], ends[first]):
            continue
        count = index - first
        if count > 1:
            begin = max(starts[first], ends[first - 1] if first else 0)
            for step in range(count):
                shared[first + step] = begin + (step + 1) * (ends[first] - begin) // count
        first = index
    if shared:
        shared[-1] = int(byte_at[-1])
    return shared, int(byte_at[-1]) - covered, tiles
