"""The sha256 that identifies a text: of all its documents, as they will be scored."""

from __future__ import annotations

import hashlib
import json

from lossprobe.text.counts import SLICE, slices
from lossprobe.text.documents import Document, Source
from lossprobe.text.examples import example_to_json
from lossprobe.text.stage import Stage, counted, no_stage

MORE = b"\xff" * 8  # a length that no text has, before what a plain document lacks


class Fingerprint:
    """A running sha256 over documents and their fields, examples and spans.

    The length of each comes before its bytes, so that the same text split at other places has another hash.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Add the next document."""
        self._add(document.text)
        self._add(document.fields or "")
        if document.example is not None:
            self._digest.update(MORE)
            self._add(example_to_json(document.example))
        if document.spans:
            self._digest.update(MORE)
            self._add(json.dumps([list(vars(span).values()) for span in document.spans]))

    def _add(self, part: str) -> None:
        if len(part) <= SLICE:
            data = part.encode()
            self._digest.update(len(data).to_bytes(8, "little") + data)
            return
        size = sum(len(piece.encode()) for piece in slices(part))
        self._digest.update(size.to_bytes(8, "little"))
        for piece in slices(part):
            self._digest.update(piece.encode())

    def hexdigest(self) -> str:
        """Return the sha256 so far."""
        return self._digest.hexdigest()


def fingerprint(source: Source, stage: Stage = no_stage) -> str:
    """Return the sha256 of all documents of a source, as `Fingerprint` computes it.

    Args:
        source: the source.
        stage: called now and then with words for how far it is.
    """
    running = Fingerprint()
    for document in counted(source.documents(), stage):
        running.add(document)
    return running.hexdigest()
