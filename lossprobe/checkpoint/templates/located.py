"""Find where a template writes each text of a conversation.

The conversation is rendered with a mark in place of a text. Where everything before and after the mark is what the
template also writes with the text itself, the text lies between; otherwise its place is not certain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lossprobe.checkpoint.templates.fields import DIGITS, Field, Message, Piece, fields_of, marked, marks_for
from lossprobe.text.spans import Part

# Renders messages, with the header of the next answer where the second argument is true; None where that fails.
Render = Callable[[Sequence[Message], bool], str | None]


class NotCertainError(Exception):
    """What a template writes does not tell where a part of it comes from."""


@dataclass(frozen=True)
class Found:
    """A piece of the conversation in the rendered text.

    Attributes:
        piece: the piece.
        start, stop: its characters, `start == stop` where the template writes nothing of it.
    """

    piece: Piece
    start: int
    stop: int


@dataclass(frozen=True)
class Located:
    """The pieces of a conversation in its rendered text.

    Attributes:
        found: the pieces that the template writes, in the order of the text.
        marked: the messages with marks in place of these pieces.
        skeleton: what the template makes of `marked`.
        marks: the mark of each of `found`.
        dropped: pieces that the template leaves out.
    """

    found: list[Found]
    marked: list[Message]
    skeleton: str
    marks: list[str]
    dropped: list[Piece]

    def filled(self, shown: str, text: str) -> str:
        """Return what was rendered with marks with the texts in their place.

        Args:
            shown: what was rendered.
            text: the rendered conversation.
        """
        pieces = {mark: text[found.start : found.stop] for found, mark in zip(self.found, self.marks, strict=True)}
        return _filled(shown, pieces)


def locate(render: Render, messages: Sequence[Message], text: str) -> Located:
    """Return where the template writes the pieces of the messages.

    Args:
        render: the template.
        messages: the conversation.
        text: what the template makes of it.

    Raises:
        NotCertainError: the place of a text is not certain; the message says which and why.
    """
    pieces, fields = fields_of(messages)
    marks = dict(enumerate(marks_for(len(pieces), [text, *(piece.text for piece in pieces)])))
    if len(marks) < len(pieces):
        raise NotCertainError("the conversation holds private-use characters of every block that could mark its texts")
    asked = _Asked(render, messages, pieces, fields, marks, text)
    written = _all_at_once(asked)
    left_out = set(marks) - set(written or ())
    if written is None:
        written, left_out = _one_by_one(asked)
    chosen = {number: marks[number] for number in written}
    shown = marked(messages, pieces, fields, chosen)
    skeleton = render(shown, False) or ""
    places = _places(skeleton, chosen, written)
    if _filled(skeleton, {mark: written[number] for number, mark in chosen.items()}) != text:
        raise NotCertainError("the template writes other words around one text when another changes")
    spoken = {pieces[number].turn for number, _ in places if written[number]}
    places = [(number, start) for number, start in places if written[number] or pieces[number].turn not in spoken]
    found = [Found(pieces[number], start, start + len(written[number])) for number, start in places]
    dropped = [pieces[number] for number in sorted(left_out)]
    return Located(found, shown, skeleton, [marks[number] for number, _ in places], dropped)


class _Asked(NamedTuple):
    """A conversation with its pieces, a mark for each, and what the template makes of it."""

    render: Render
    messages: Sequence[Message]
    pieces: Sequence[Piece]
    fields: Sequence[Field]
    marks: Mapping[int, str]
    text: str

    def with_marks(self, marks: Mapping[int, str]) -> str | None:
        """Return what the template makes of the conversation with these marks in place of pieces."""
        return self.render(marked(self.messages, self.pieces, self.fields, marks), False)


def _all_at_once(asked: _Asked) -> dict[int, str] | None:
    """Return what the template writes of each piece, where it writes all of them as they are or all of them stripped.

    No mixture of both has the same length, so that this answer is the only one.
    """
    marks, pieces = asked.marks, asked.pieces
    skeleton = asked.with_marks(marks)
    if skeleton is None:
        return None
    counts = {number: skeleton.count(mark) for number, mark in marks.items()}
    if any(count > 1 and pieces[number].part is not Part.TOOL_CALL for number, count in counts.items()):
        return None
    for strip in (False, True):
        written = {number: pieces[number].text.strip() if strip else pieces[number].text for number in marks}
        if _filled(skeleton, {mark: written[number] for number, mark in marks.items()}) == asked.text:
            return {number: written[number] for number in marks if counts[number]}
    return None


def _one_by_one(asked: _Asked) -> tuple[dict[int, str], set[int]]:
    """Return what the template writes of each piece, and which it leaves out, with a mark in place of one at a time.

    Raises:
        NotCertainError: the template does more with a text than to write it at one place.
    """
    written: dict[int, str] = {}
    left_out: set[int] = set()
    text = asked.text
    for number, piece in enumerate(asked.pieces):
        mark = asked.marks[number]
        alone = asked.with_marks({number: mark})
        if alone == text:
            left_out.add(number)
            continue
        before, *others = (alone or "").split(mark)
        after = others[-1] if others else ""
        around = len(before) + len(after) <= len(text) and text.startswith(before) and text.endswith(after)
        if len(others) == 1 and around:
            written[number] = text[len(before) : len(text) - len(after)]
        elif others and piece.part is Part.TOOL_CALL and piece.text.join([before, *others]) == text:
            written[number] = piece.text
        elif piece.part is not Part.TOOL_CALL and piece.text.strip():
            raise NotCertainError(f"turn {piece.turn}: {_why(alone, len(others))}")
    return written, left_out


def _why(alone: str | None, times: int) -> str:
    """Return why the place of a content is not certain."""
    if alone is None:
        return "the template refuses other words in place of its own"
    if times > 1:
        return f"the template writes its words {times} times"
    return "the template writes other words around it when its own change"


def _filled(shown: str, texts: Mapping[str, str]) -> str:
    """Return a text with others in place of marks (mark → text)."""
    return _any_of(texts).sub(lambda match: texts[match[0]], shown) if texts else shown


def _places(skeleton: str, marks: Mapping[int, str], written: Mapping[int, str]) -> list[tuple[int, int]]:
    """Return the number of each piece that is written, and the character at which it starts, in order of the text.

    A name that is written several times counts where it is first.
    """
    if not marks:
        return []
    numbers = {mark: number for number, mark in marks.items()}
    places: dict[int, int] = {}
    shift = 0  # characters by which pieces are longer than their marks, up to here
    for match in _any_of(numbers).finditer(skeleton):
        number = numbers[match[0]]
        places.setdefault(number, match.start() + shift)
        shift += len(written[number]) - len(match[0])
    return list(places.items())


def _any_of(marks: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for all marks of the block from which some are."""
    first = next(iter(marks))[0]
    return re.compile(f"{first}[{chr(ord(first) - DIGITS)}-{chr(ord(first) - 1)}]{{3}}")
