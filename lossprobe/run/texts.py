"""The bytes that each token covers in its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Protocol

from lossprobe.run.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

HELD_BYTES = 64 << 20


class Readable(Protocol):
    """A run, as far as texts need it."""

    @property
    def settings(self) -> RunSettings:
        """Model, text and windows of the run."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Return the result of a SQL query as a frame."""


@dataclass
class DocumentTexts:
    """The stored text of documents, about 64 MB (or one document) at a time.

    Attributes:
        run: the run.
        kept: False when the run was made without its text; there is no text then.
    """

    run: Readable
    kept: bool = field(init=False)
    _held: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.kept = bool(self.run.settings.text.kept)

    def along(self, documents: Sequence[int]) -> Iterator[bytes | None]:
        """Yield the UTF-8 bytes of each row's document, None without stored text.

        Args:
            documents: the document of each row, in ascending order.
        """
        if not self.kept:
            yield from repeat(None, len(documents))
            return
        for position, number in enumerate(documents):
            if number not in self._held:
                self._held = self._read(sorted(set(documents[position:])))
            yield self._held[number]

    def _read(self, wanted: list[int]) -> dict[int, bytes]:
        """Return the first of the wanted documents, as many as may be held."""
        chosen = "FROM documents JOIN (SELECT unnest(?::INTEGER[]) AS document) USING (document)"
        sizes = self.run.query(f"SELECT bytes {chosen} ORDER BY document", (wanted,))["bytes"]
        fitting = sum(total <= HELD_BYTES for total in accumulate(sizes))
        wanted = wanted[: max(1, fitting)]
        texts = self.run.query(
            f"SELECT document, text {chosen} WHERE document BETWEEN ? AND ?", (wanted, wanted[0], wanted[-1])
        )
        return {int(number): text.encode() for number, text in zip(texts["document"], texts["text"], strict=True)}


@dataclass(frozen=True)
class Vocabulary:
    """What each id stands for.

    Attributes:
        entries: id → its bytes in running text; the name of a special id.
        special: ids that stand for no text of their own.
    """

    entries: dict[int, bytes]
    special: frozenset[int]

    def covered(self, text: bytes | None, start: int, stop: int, token_id: int) -> bytes:
        """Return the bytes that a token covers in its document, joined they are the document.

        A special token without bytes, such as a BOS, shows its name. Without a stored text (None) the entry's own bytes
        stand for those of the document.
        """
        if text is None or (stop <= start and token_id in self.special):
            return self.entries[token_id]
        return text[start:stop]


def load_vocabulary(run: Readable) -> Vocabulary:
    """Return the vocabulary of a run."""
    frame = run.query("SELECT token_id, bytes, special FROM vocabulary")
    ids = [int(index) for index in frame["token_id"]]
    entries = {index: bytes(data) for index, data in zip(ids, frame["bytes"], strict=True)}
    return Vocabulary(
        entries, frozenset(index for index, special in zip(ids, frame["special"], strict=True) if special)
    )
