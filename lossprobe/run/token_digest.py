"""Hashes what a tokenizer made of a text, so that two tokenizers can be compared by their tokens alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from lossprobe.run.settings import RunSettings

if TYPE_CHECKING:
    import pyarrow as pa

Whole = npt.NDArray[np.integer]


class TokenDigest:
    """A running sha256 over the tokens of a text: the document, the id and the byte span of each.

    The BOS that a policy puts before each document is no token of the text, and left out. How the rows are cut into
    pieces does not matter.

    Args:
        bos_id: the BOS before every document, the first row of each; None without one.
    """

    def __init__(self, bos_id: int | None) -> None:
        self._first = 0 if bos_id is None else 1
        self._sha256 = hashlib.sha256()

    def add(self, token: Whole, document: Whole, token_id: Whole, byte_start: Whole, byte_stop: Whole) -> None:
        """Add rows in text order, integers [N] each; `token` is the index in the document, any BOS counted."""
        rows = np.stack([document, token_id, byte_start, byte_stop], axis=1)[token >= self._first]
        self._sha256.update(rows.astype("<i8").tobytes())

    def hexdigest(self) -> str:
        """Return the hash of all rows so far."""
        return self._sha256.hexdigest()


class Digestible(Protocol):
    """A run whose tokens can be read."""

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of its manifest."""

    @property
    def settings(self) -> RunSettings:
        """Model, text and windows of the run."""

    def batches(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[pa.RecordBatch]:
        """Yield the result of a SQL query in Arrow batches."""


def digest_of(run: Digestible) -> str:
    """Return the hash of the tokens of a run; of a baseline, which has no byte spans, the stored one, or ""."""
    if "columns" in run.manifest:
        return str(run.manifest.get("tokens_sha256", ""))
    digest = TokenDigest(run.settings.windows.bos_id)
    for batch in run.batches("SELECT token, document, token_id, byte_start, byte_stop FROM tokens"):
        digest.add(*(column.to_numpy() for column in batch.columns))
    return digest.hexdigest()
