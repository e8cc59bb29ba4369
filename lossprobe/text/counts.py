"""Counts the bytes, characters and words of a text or of byte spans in it.

A byte is a byte of UTF-8, a character is a Unicode code point, and a word is a run of characters other than white space
(`str.split`). A character or word counts for the span that holds its first byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SLICE = 1 << 20  # characters


@dataclass(frozen=True)
class TextCounts:
    """Numbers of UTF-8 bytes, Unicode characters, and words between white space."""

    bytes: int
    characters: int
    words: int

    def __add__(self, other: TextCounts) -> TextCounts:
        return TextCounts(self.bytes + other.bytes, self.characters + other.characters, self.words + other.words)

    def __sub__(self, other: TextCounts) -> TextCounts:
        return TextCounts(self.bytes - other.bytes, self.characters - other.characters, self.words - other.words)


def slices(text: str, size: int = SLICE) -> Iterator[str]:
    """Yield a text in slices of at most `size` characters, so that copies of a slice take little memory."""
    return (text[start : start + size] for start in range(0, len(text), size))


def count_text(text: str) -> TextCounts:
    """Return the counts of a whole text.

    >>> count_text("naïve  idea")
    TextCounts(bytes=12, characters=11, words=2)
    """
    if len(text) <= SLICE:
        return TextCounts(len(text.encode()), len(text), len(text.split()))
    words, inside = 0, False  # a word that continues in the next slice is counted in the slice where it starts
    for piece in slices(text):
        words += len(piece.split()) - (inside and not piece[0].isspace())
        inside = not piece[-1].isspace()
    return TextCounts(sum(len(piece.encode()) for piece in slices(text)), len(text), words)


def count_spans(text: str | bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> list[TextCounts]:
    """Return the counts of each byte span [start, stop) of a text, which is given as a string or as UTF-8 bytes.

    >>> count_spans("naïve idea", np.array([0, 3]), np.array([3, 11]))
    [TextCounts(bytes=3, characters=3, words=1), TextCounts(bytes=8, characters=7, words=1)]
    """
    data = text.encode() if isinstance(text, str) else text
    return [_count_span(data, start, stop) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]


def joined(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return byte spans, with those joined that follow each other without a gap; the sum of their counts is the same.

    >>> joined(np.array([0, 2, 7]), np.array([2, 5, 9]))
    (array([0, 7]), array([5, 9]))
    """
    apart = starts[1:] != stops[:-1]
    return starts[np.concatenate([[True], apart])], stops[np.concatenate([apart, [True]])]


def _count_span(data: bytes, start: int, stop: int) -> TextCounts:
    first, last = next_character(data, start), next_character(data, stop)
    piece = data[first:last].decode()
    before = data[max(0, first - 4) : first].decode(errors="ignore")[-1:]
    continues = before != "" and not before.isspace() and piece != "" and not piece[0].isspace()
    return TextCounts(stop - start, len(piece), len(piece.split()) - continues)


def next_character(data: bytes, position: int) -> int:
    """Return the first byte position ≥ `position` at which a UTF-8 character starts, or the length of the data."""
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    return position


def this_character(data: bytes, position: int) -> int:
    """Return the byte position at which the UTF-8 character that contains `position` starts."""
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position -= 1
    return position
