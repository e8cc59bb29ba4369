"""Splits a text into pieces at separators, with the line and byte offset of each piece, and normalises line ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.options.kinds import BadValueError
from lossprobe.units import visible

SEPARATORS = {"blank-line": r"\r?\n(?:[^\S\r\n]*\r?\n)+", "line": r"\r?\n"}


@dataclass(frozen=True)
class Piece:
    """A part of a text between separators.

    Attributes:
        text: the part.
        line: line of the text on which it starts, from 1.
        byte_offset: offset of its first byte in the text's UTF-8 bytes.
    """

    text: str
    line: int
    byte_offset: int


def separator_pattern(split: str) -> re.Pattern[str]:
    """Return the compiled pattern of a separator: "blank-line", "line" or a regular expression.

    Raises:
        BadValueError: it is not a valid regular expression, or matches the empty string.
    """
    try:
        pattern = re.compile(SEPARATORS.get(split, split))
    except (re.error, OverflowError, RecursionError) as error:
        reason = f"{visible(split, 40)}: {error}; use blank-line, line, or a regular expression"
        raise BadValueError(reason) from None
    if pattern.match(""):
        raise BadValueError(f"{visible(split, 40)}: matches the empty string")
    return pattern


def split_text(text: str, split: str) -> Iterator[Piece]:
    r"""Yield the non-empty pieces of a text between separators.

    >>> [(piece.text, piece.line, piece.byte_offset) for piece in split_text("é\n\nb", "blank-line")]
    [('é', 1, 0), ('b', 3, 4)]
    """
    position, line, byte_offset = 0, 1, 0
    for start, stop in _separators(text, separator_pattern(split)):
        if start > position:
            yield Piece(text[position:start], line, byte_offset)
        passed = text[position:stop]
        line += passed.count("\n")
        byte_offset += len(passed.encode())
        position = stop


def _separators(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of every separator, and last the end of the text as an empty separator."""
    for match in pattern.finditer(text):
        yield match.span()
    yield len(text), len(text)


def with_lf(text: str) -> str:
    r"""Return a text with every CRLF and CR turned into LF.

    >>> with_lf("a\r\nb\rc\n")
    'a\nb\nc\n'
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class LineEnds:
    """Maps byte offsets in `with_lf(text)` back to byte offsets in `text`.

    Attributes:
        shortened: int64 [N], ascending offsets in `with_lf(text)` of the LFs that were CRLFs.
    """

    shortened: npt.NDArray[np.int64]

    @staticmethod
    def of(text: str) -> LineEnds:
        """Return the map for a text, given before its line ends are changed."""
        data = np.frombuffer(text.encode(), np.uint8)
        pairs = np.flatnonzero((data[:-1] == 0x0D) & (data[1:] == 0x0A))
        return LineEnds(pairs - np.arange(len(pairs)))

    def original(self, byte_offset: int) -> int:
        r"""Return the byte offset in the original text.

        >>> LineEnds.of("a\r\nb").original(2)
        3
        """
        return byte_offset + int(np.searchsorted(self.shortened, byte_offset, side="left"))
