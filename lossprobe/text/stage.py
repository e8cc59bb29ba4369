"""Tells people how far the reading of a text is: a large one takes minutes before anything is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from lossprobe.text.documents import Document

Stage = Callable[[str], None]
EVERY = 1000  # documents


def no_stage(text: str) -> None:
    """Tell nobody."""


def counted(documents: Iterable[Document], stage: Stage) -> Iterator[Document]:
    """Yield documents, and tell how many were read after each thousand."""
    for number, document in enumerate(documents):
        if number and number % EVERY == 0:
            stage(f"reading: {number:,} documents")
        yield document
