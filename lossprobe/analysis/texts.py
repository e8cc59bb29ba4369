"""The text behind token rows: the bytes of a token, and the characters around it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lossprobe.run.reader import Run
from lossprobe.units import visible_bytes


@dataclass
class DocumentTexts:
    """The stored text of documents, a few at a time.

    Attributes:
        run: the run.
        kept: False when the run was made with --no-text; `load` then finds nothing.
    """

    run: Run
    kept: bool = field(init=False)
    _held: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.kept = bool(self.run.manifest["settings"]["text"]["kept"])

    def load(self, first: int, last: int) -> dict[int, bytes]:
        """Return the UTF-8 bytes of documents `first` to `last`; those of the call before are not read again."""
        if not self.kept:
            return {}
        missing = [number for number in range(first, last + 1) if number not in self._held]
        self._held = {number: data for number, data in self._held.items() if first <= number <= last}
        if missing:
            frame = self.run.query(
                "SELECT document, text FROM documents WHERE document BETWEEN ? AND ?", (missing[0], missing[-1])
            )
            self._held |= {
                int(number): text.encode() for number, text in zip(frame["document"], frame["text"], strict=True)
            }
        return self._held


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
    first, last = _boundary_before(data, start), _boundary_after(data, stop)
    before = data[_boundary_after(data, max(0, first - width)) : first]
    after = data[last : _boundary_before(data, min(len(data), last + width))]
    return Surroundings(visible_bytes(data[first:last]), visible_bytes(before), visible_bytes(after))


def _boundary_before(data: bytes, position: int) -> int:
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position -= 1
    return position


def _boundary_after(data: bytes, position: int) -> int:
    while 0 < position < len(data) and data[position] & 0xC0 == 0x80:
        position += 1
    return position


def vocabulary_bytes(run: Run) -> dict[int, bytes]:
    """Return the bytes of every vocabulary id."""
    frame = run.query("SELECT token_id, bytes FROM vocabulary")
    return {int(index): bytes(data) for index, data in zip(frame["token_id"], frame["bytes"], strict=True)}
