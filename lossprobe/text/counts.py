"""How many bytes, characters and words a stretch of text holds, by the rules that every view prints.

A byte is a UTF-8 byte, a character a Unicode code point, a word a run without white space (`str.split`). A
character or word belongs to the span that holds its first byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class TextCounts:
    """Sizes of a stretch of text: UTF-8 bytes, Unicode characters, and words between white space."""

    bytes: int
    characters: int
    words: int

    def __sub__(self, other: TextCounts) -> TextCounts:
        return TextCounts(self.bytes - other.bytes, self.characters - other.characters, self.words - other.words)


def count_text(text: str) -> TextCounts:
    """Return the sizes of a whole text.

    >>> count_text("naïve  idea")
    TextCounts(bytes=12, characters=11, words=2)
    """
    return TextCounts(len(text.encode()), len(text), len(text.split()))


def count_spans(text: str, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> list[TextCounts]:
    """Return the sizes of the byte spans [start, stop) of a text, spans in order and without overlap.

    >>> count_spans("naïve idea", np.array([0, 3]), np.array([3, 11]))
    [TextCounts(bytes=3, characters=3, words=1), TextCounts(bytes=8, characters=7, words=1)]
    """
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    characters = np.flatnonzero((data & 0xC0) != 0x80)
    words = characters[[match.start() for match in WORD.finditer(text)]] if len(characters) else characters

    def within(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(positions, stops) - np.searchsorted(positions, starts)

    columns = (stops - starts, within(characters), within(words))
    return [TextCounts(*(int(value) for value in row)) for row in zip(*columns, strict=True)]
