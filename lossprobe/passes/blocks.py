"""Divides a text into blocks of documents, which one process plans one after the other, or several at once.

Where a block ends depends on the text alone, and a part of a run never crosses the edge of a block. So it changes
nothing of a run who planned a block, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lossprobe.text.documents import Document

BLOCK_CHARACTERS = 8 << 20  # about 2 million tokens, 60 parts: the last part, half as long on average, costs little


@dataclass(frozen=True)
class Block:
    """Documents of a text that follow each other.

    Attributes:
        number: its number, from 0.
        first_document: number of its first document.
        documents: its documents, which can be taken once, before the next block.
    """

    number: int
    first_document: int
    documents: Iterator[Document]


def blocks_of(documents: Iterable[Document], characters: int = BLOCK_CHARACTERS) -> Iterator[Block]:
    """Yield the blocks of a text; documents of a block that were not taken are passed over.

    When a block is at its end, no document after it was read.

    Args:
        documents: the documents of the text.
        characters: a block ends with the document that makes it so long; each counts for one character more.
    """
    remaining = iter(documents)
    number = count = 0
    for first in remaining:
        taken = _Taken(first, remaining, characters)
        del first  # a document can be large
        yield Block(number, count, taken)
        for _ in taken:
            pass
        number += 1  # noqa: SIM113 - `enumerate` would keep the document
        count += taken.count


class _Taken(Iterator[Document]):
    """The documents of one block, and how many were taken."""

    def __init__(self, first: Document, remaining: Iterator[Document], characters: int) -> None:
        self._first: list[Document] = [first]
        self._remaining = remaining
        self._left = characters
        self.count = 0

    def __next__(self) -> Document:
        if self._first:
            document = self._first.pop()
        elif self._left > 0:
            document = next(self._remaining)
        else:
            raise StopIteration
        self._left -= len(document.text) + 1
        self.count += 1
        return document
