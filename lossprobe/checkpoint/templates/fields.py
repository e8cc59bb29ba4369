"""The texts inside the messages of a conversation, and conversations in which marks stand in place of some of them.

A mark is a short run of private-use characters that neither the conversation nor the template holds. Where it comes out
of the template is where the template writes the text that it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossprobe.checkpoint.templates.units import ASSISTANT
from lossprobe.text.spans import Part

Message = Mapping[str, Any]
Place = tuple[str | int, ...]

# Names under which transformers and templates know the reasoning of a message.
REASONING = ("reasoning_content", "thinking", "reasoning")
TAGS = (
    (r"<think>", r"</think>"),
    (r"<thinking>", r"</thinking>"),
    (r"\[THINK\]", r"\[/THINK\]"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<seed:think>", r"</seed:think>"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|channel>thought\n", r"<channel\|>"),
)
THOUGHT = re.compile("|".join(rf"\s*{start}\s*(?:.*?){stop}\s*" for start, stop in TAGS), re.DOTALL)
OPENS = re.compile(rf"\s*(?:{'|'.join(start for start, _ in TAGS)})\s*")
CLOSES = re.compile(rf"\s*(?:{'|'.join(stop for _, stop in TAGS)})\s*")
RESPONSE = re.compile(r"(<tool_response>\s*)(.*?)(\s*</tool_response>)", re.DOTALL)  # in the words of a user
BLOCKS = (0xE100, 0xF200, 0x10F000)  # where runs of private-use characters begin from which marks are made
DIGITS = 64


@dataclass(frozen=True)
class Piece:
    """A text inside a message.

    Attributes:
        turn: number of its message.
        part: CONTENT, THINKING, or TOOL_CALL for the name of a called function.
        text: the text.
    """

    turn: int
    part: Part
    text: str


@dataclass(frozen=True)
class Field:
    """A string of a message, cut into pieces and the tags between them.

    Attributes:
        turn: number of the message.
        places: the places in the message that hold the string; reasoning can be there under several names.
        cuts: the parts of the string in order: a tag, or the number of a piece.
    """

    turn: int
    places: tuple[Place, ...]
    cuts: tuple[str | int, ...]


def fields_of(messages: Sequence[Message]) -> tuple[list[Piece], list[Field]]:
    """Return the pieces of the messages, and the fields that hold them."""
    pieces: list[Piece] = []
    fields: list[Field] = []
    for turn, message in enumerate(messages):
        for places, value, part in _strings(message):
            cuts: list[str | int] = []
            for text, of in _cut(value, message.get("role")) if part is Part.CONTENT else [(value, part)]:
                if of is None:
                    cuts.append(text)
                else:
                    cuts.append(len(pieces))
                    pieces.append(Piece(turn, of, text))
            fields.append(Field(turn, places, tuple(cuts)))
    return pieces, fields


def _strings(message: Message) -> Iterator[tuple[tuple[Place, ...], str, Part]]:
    """Yield the strings of a message that become text: where they are, the string, and what it is."""
    reasoning = next((message[key] for key in REASONING if isinstance(message.get(key), str)), None)
    if reasoning is not None:
        yield tuple((key,) for key in REASONING if message.get(key) == reasoning), reasoning, Part.THINKING
    content = message.get("content")
    if isinstance(content, str):
        yield (("content",),), content, Part.CONTENT
    elif isinstance(content, list):
        for index, block in enumerate(content):
            if isinstance(block, Mapping) and isinstance(block.get("text"), str):
                yield (("content", index, "text"),), block["text"], Part.CONTENT
    calls = message.get("tool_calls")
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        inner: Place = ("function",) if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping) else ()
        name = value_at(message, ("tool_calls", index, *inner, "name"))
        if isinstance(name, str) and name:
            yield (("tool_calls", index, *inner, "name"),), name, Part.TOOL_CALL


def _cut(value: str, role: object) -> Iterator[tuple[str, Part | None]]:
    """Yield the parts of a content: thinking of an assistant, what stands around it, and tags (None).

    Templates look for the tags of thinking, and for those of a tool's response that a user gives, so that these stay.
    """
    response = RESPONSE.fullmatch(value) if role != ASSISTANT else None
    if response:
        yield from zip(response.groups(), (None, Part.CONTENT, None), strict=True)
        return
    done = 0
    for match in THOUGHT.finditer(value) if role == ASSISTANT else ():
        if match.start() > done:
            yield value[done : match.start()], Part.CONTENT
        opening, closing = OPENS.match(match[0]), None
        for closing in CLOSES.finditer(match[0]):  # noqa: B007 - the last one is wanted
            pass
        start = opening.end() if opening else 0
        stop = max(start, closing.start()) if closing else len(match[0])
        yield match[0][:start], None
        if stop > start:
            yield match[0][start:stop], Part.THINKING
        yield match[0][stop:], None
        done = match.end()
    if done < len(value) or not done:
        yield value[done:], Part.CONTENT


def value_at(value: Any, place: Place) -> Any:
    """Return what is at a place inside nested lists and mappings, or None."""
    for key in place:
        fits = isinstance(value, Mapping) if isinstance(key, str) else isinstance(value, list)
        if not fits:
            return None
        value = value.get(key) if isinstance(key, str) else value[key]
    return value


def _with_value(value: Any, place: Place, new: str) -> Any:
    """Return a copy of nested lists and mappings with another string at a place."""
    if not place:
        return new
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[place[0]] = _with_value(value[place[0]], place[1:], new)
    return copy


def marks_for(count: int, texts: Collection[str]) -> list[str]:
    """Return marks that no text holds, none of them part of another; [] where every block of marks is taken."""
    for block in BLOCKS:
        characters = {chr(block + digit) for digit in range(DIGITS + 1)}
        if all(characters.isdisjoint(text) for text in texts):
            return [_mark(number, block) for number in range(count)]
    return []


def _mark(number: int, block: int) -> str:
    digits = ""
    for _ in range(3):
        number, digit = divmod(number, DIGITS)
        digits += chr(block + digit)
    return chr(block + DIGITS) + digits


def marked(
    messages: Sequence[Message], pieces: Sequence[Piece], fields: Sequence[Field], marks: Mapping[int, str]
) -> list[Message]:
    """Return the messages with marks in place of some pieces.

    Args:
        messages: the messages.
        pieces: the first part of what `fields_of` returns of them.
        fields: the second part.
        marks: number of a piece → its mark.
    """
    changed: list[Message] = list(messages)
    for field in fields:
        if any(cut in marks for cut in field.cuts if isinstance(cut, int)):
            new = "".join(cut if isinstance(cut, str) else marks.get(cut, pieces[cut].text) for cut in field.cuts)
            for place in field.places:
                changed[field.turn] = _with_value(changed[field.turn], place, new)
    return changed
