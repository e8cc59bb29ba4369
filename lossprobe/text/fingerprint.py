"""The sha256 that identifies a text: of all its documents, as they will be scored."""

from __future__ import annotations

import hashlib

from lossprobe.text.counts import slices
from lossprobe.text.documents import Document, Source


class Fingerprint:
    """A running sha256 over documents and their fields.

    The length of each comes before its bytes, so that the same text split at other places has another hash.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Add the next document."""
        for part in (document.text, document.fields or ""):
            size = sum(len(piece.encode()) for piece in slices(part))
            self._digest.update(size.to_bytes(8, "little"))
            for piece in slices(part):
                self._digest.update(piece.encode())

    def hexdigest(self) -> str:
        """Return the sha256 so far."""
        return self._digest.hexdigest()


def fingerprint(source: Source) -> str:
    """Return the sha256 of all documents of a source, as `Fingerprint` computes it."""
    running = Fingerprint()
    for document in source.documents():
        running.add(document)
    return running.hexdigest()
