"""The bytes that each token covers in its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import TYPE_CHECKING, Protocol

from lossprobe.plain_table import PlainTable
from lossprobe.run.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

HELD_BYTES = 64 << 20


class Readable(Protocol):
    """The protocol of a run whose texts can be read."""

    @property
    def settings(self) -> RunSettings:
        """Model, text and windows of the run."""

    @property
    def labelled(self) -> bool:
        """Whether its tokens have turns, roles and parts."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Return the result of a SQL query as a frame."""

    def columns(self, sql: str, parameters: Sequence[object] = ()) -> PlainTable:
        """Return the result of a SQL query as plain columns."""


@dataclass
class DocumentTexts:
    """The stored text of documents, about 64 MB (or one document) at a time.

    Attributes:
        run: the run.
        kept: whether the run has its text.
    """

    run: Readable
    kept: bool = field(init=False)
    _held: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.kept = bool(self.run.settings.text.kept)

    def along(self, documents: Sequence[int]) -> Iterator[bytes | None]:
        """Yield the UTF-8 bytes of the document of each row; None for each if the run has no text.

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
        """Return the first wanted documents, up to `HELD_BYTES` and at least one, as number → UTF-8 bytes."""
        chosen = "FROM documents JOIN (SELECT unnest(?::INTEGER[]) AS document) USING (document)"
        sizes = self.run.columns(f"SELECT bytes {chosen} ORDER BY document", (wanted,))["bytes"].tolist()
        fitting = sum(total <= HELD_BYTES for total in accumulate(sizes))
        wanted = wanted[: max(1, fitting)]
        texts = self.run.columns(
            f"SELECT document, text {chosen} WHERE document BETWEEN ? AND ?", (wanted, wanted[0], wanted[-1])
        )
        return {int(number): text.encode() for number, text in zip(texts["document"], texts["text"], strict=True)}


@dataclass(frozen=True)
class Vocabulary:
    """The bytes of each token id.

    Attributes:
        entries: id → its bytes in running text; of a special id, its name.
        special: ids of special tokens, such as BOS, which stand for no text.
    """

    entries: dict[int, bytes]
    special: frozenset[int]

    def covered(self, text: bytes | None, start: int, stop: int, token_id: int) -> bytes:
        """Return the bytes of the document from `start` to `stop`, which the token covers.

        A special token that covers none, such as a BOS, gives its name. If the run has no text (`text` is None), the
        bytes of the vocabulary entry are returned.
        """
        if text is None or (stop <= start and token_id in self.special):
            return self.entries[token_id]
        return text[start:stop]


def load_vocabulary(run: Readable) -> Vocabulary:
    """Return the vocabulary of a run."""
    frame = run.columns("SELECT token_id, bytes, special FROM vocabulary")
    ids = frame["token_id"].tolist()
    entries = {index: bytes(data) for index, data in zip(ids, frame["bytes"], strict=True)}
    return Vocabulary(
        entries, frozenset(index for index, special in zip(ids, frame["special"], strict=True) if special)
    )
