"""The text behind token rows: the characters around a token."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.text.counts import next_character, this_character
from lossprobe.units import visible_bytes


@dataclass(frozen=True)
class Surroundings:
    """A token in its text, all of it safe to print.

    Attributes:
        characters: the whole characters that the token is part of.
        before, after: the text before and after them.
    """

    characters: str
    before: str
    after: str


def surroundings(data: bytes, start: int, stop: int, width: int = 40) -> Surroundings:
    r"""Return the characters that a byte span touches, and about `width` bytes of text on either side.

    >>> surroundings("it’s".encode(), 3, 4)
    Surroundings(characters='’', before='it', after='s')
    """
    first, last = this_character(data, start), next_character(data, stop)
    before = data[next_character(data, max(0, first - width)) : first]
    after = data[last : this_character(data, min(len(data), last + width))]
    return Surroundings(visible_bytes(data[first:last]), visible_bytes(before), visible_bytes(after))
