"""The text behind token rows: the bytes of a token, and the characters around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat

from lossprobe.run.reader import Run
from lossprobe.text.counts import next_character, this_character
from lossprobe.units import visible_bytes

HELD_BYTES = 64 << 20


@dataclass
class DocumentTexts:
    """The stored text of documents, about 64 MB (or one document) at a time.

    Attributes:
        run: the run.
        kept: False when the run was made without its text; there is no text then.
    """

    run: Run
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


def load_vocabulary(run: Run) -> Vocabulary:
    """Return the vocabulary of a run."""
    frame = run.query("SELECT token_id, bytes, special FROM vocabulary")
    ids = [int(index) for index in frame["token_id"]]
    entries = {index: bytes(data) for index, data in zip(ids, frame["bytes"], strict=True)}
    return Vocabulary(
        entries, frozenset(index for index, special in zip(ids, frame["special"], strict=True) if special)
    )
