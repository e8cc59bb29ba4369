"""What a cause of defects is, and what a place of one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Cause:
    """One thing that can be wrong with a text, in words.

    Attributes:
        name: the word for it on the command line and in files, such as "mojibake".
        title: the same in words.
        rule: when a place is told, with its numbers.
        remedy: what to do about it, in one line.
        loss: what the loss says about it.
    """

    name: str
    title: str
    rule: str
    remedy: str
    loss: str


class Found(NamedTuple):
    """A place in a document where something is wrong.

    Attributes:
        cause: name of the cause.
        start, stop: its bytes in the document's UTF-8.
        detail: which kind of it, such as the pair of encodings.
        repaired: what the text was meant to be, where that is known; else "".
        spans: the bytes that count, where these are not all from `start` to `stop`; such as single line ends.
        origin: document, first and last byte of what this is a copy of; None for no copy.
    """

    cause: str
    start: int
    stop: int
    detail: str
    repaired: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    origin: tuple[int, int, int] | None = None

    @property
    def counted(self) -> tuple[tuple[int, int], ...]:
        """The byte spans whose tokens belong to the place."""
        return self.spans or ((self.start, self.stop),)
