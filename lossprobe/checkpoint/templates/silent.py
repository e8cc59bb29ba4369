"""Find the turns without a text of their own, such as an empty answer, of which only the frame is written."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.checkpoint.templates.fields import Piece
from lossprobe.checkpoint.templates.located import Found, Located, NotCertainError, Render
from lossprobe.checkpoint.templates.units import ASSISTANT, common_start
from lossprobe.text.spans import Part


@dataclass(frozen=True)
class Silent:
    """A turn without a text.

    Attributes:
        found: an empty text, where the turn's text would be.
        head: what the template writes of the marked conversation before it.
    """

    found: Found
    head: str


def silent_turns(render: Render, located: Located, text: str) -> list[Silent]:
    """Return the turns of which the template writes no text, but something around it.

    Raises:
        NotCertainError: such a turn is an answer, and it is not certain where it is.
    """
    heard = {found.piece.turn for found in located.found}
    silent = []
    for number, message in enumerate(located.marked):
        if number in heard:
            continue
        head = _head(render, located, number)
        if head is None:
            if message.get("role") == ASSISTANT:
                raise NotCertainError(f"turn {number}: it has no text by which its place could be found")
            continue
        before = located.filled(head, text)
        if head and text.startswith(before):
            piece = Piece(number, Part.CONTENT, "")
            silent.append(Silent(Found(piece, len(before), len(before)), head))
    return silent


def _head(render: Render, located: Located, number: int) -> str | None:
    """Return what the template writes before the place of a turn's text.

    Returns:
        "" where it writes nothing of the turn, None where that cannot be told.
    """
    before = render(located.marked[:number], False) if number else ""
    until = render(located.marked[: number + 1], False)
    if before is None or until is None:
        return None
    if before == until:
        return ""
    shared = common_start(before, until)
    asked = (
        render(located.marked[:number], True) if number and located.marked[number].get("role") == ASSISTANT else None
    )
    if asked is not None and until.startswith(asked) and located.skeleton.startswith(asked):
        return asked
    return shared if located.skeleton.startswith(shared) else None
