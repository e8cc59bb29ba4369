"""The text of one document as the causes read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class TextPage:
    """A document.

    Attributes:
        number: its number.
        data: its UTF-8 bytes.
        template: byte spans that a chat template wrote; nothing in them is a defect of the text.
        common: byte spans that documents have in common by design: these, system prompts, and the prompt of the second
            side of a pair; copies are not looked for in them.
    """

    number: int
    data: bytes = field(repr=False)
    template: Sequence[tuple[int, int]] = ()
    common: Sequence[tuple[int, int]] = ()

    @cached_property
    def is_ascii(self) -> bool:
        """Whether every character is one byte."""
        return self.data.isascii()

    @cached_property
    def text(self) -> str:
        """The text; a byte that is not UTF-8, as in a text that was made of tokens, is a lone surrogate."""
        return self.data.decode("utf-8", "surrogateescape")

    @property
    def own(self) -> bytes:
        r"""The text with line ends in place of what it has in common with others by design.

        >>> TextPage(0, b"sys: ab", common=[(0, 4)]).own
        b'\n\n\n\n ab'
        """
        own = bytearray(self.data)
        for start, stop in self.common:
            own[start:stop] = b"\n" * (stop - start)
        return bytes(own) if self.common else self.data

    def byte_place(self, character: int) -> int:
        """Return the byte at which a character of `text` begins.

        >>> TextPage(0, "é x".encode()).byte_place(2)
        3
        """
        return character if self.is_ascii else int(self._places[character])

    @cached_property
    def _places(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        first = (np.frombuffer(self.data, np.uint8) & 0xC0) != 0x80
        if len(self.text) != int(first.sum()):  # bytes that are not UTF-8
            sizes = [len(character.encode("utf-8", "surrogateescape")) for character in self.text]
            return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return np.append(np.flatnonzero(first), len(self.data)).astype(np.int64)
