"""Name the part of every character of a rendered conversation: header, content, thinking, tool call, end of turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lossprobe.checkpoint.templates.fields import CLOSES, OPENS, THOUGHT, Message
from lossprobe.checkpoint.templates.located import NotCertainError, Render, locate
from lossprobe.checkpoint.templates.turns import Habits, Turn, learned, turns_of
from lossprobe.checkpoint.templates.units import ASSISTANT, SYSTEM, USER, common_start
from lossprobe.text.spans import Part, Span

LAST_CONTROL = re.compile(r"<\|[^<>|\s]{1,60}\|>\s*\Z")
PROBE = ("Ask one.", "Say two.", "Ask three.", "Say four.")


@dataclass(frozen=True)
class Stretch:
    """Some characters of a rendered conversation, all of one part of one turn; fields as in `Span`."""

    stop: int
    turn: int | None
    role: str | None
    part: Part
    scored: bool = True


@dataclass(frozen=True)
class Parts:
    """The parts of a rendered conversation.

    Attributes:
        stretches: the parts, which tile the text.
        changed_turns: number of turns up to which the conversation is rendered in another way when more turns follow.
        dropped_turns: numbers of the turns of which the template leaves a text out.
    """

    stretches: list[Stretch]
    changed_turns: int
    dropped_turns: tuple[int, ...]


def habits_of(render: Render, bos: str) -> Habits:
    """Return what a template does in every conversation, as far as it renders one of two questions and two answers."""
    messages = [{"role": ASSISTANT if index % 2 else USER, "content": content} for index, content in enumerate(PROBE)]
    text = render(messages, False)
    plain = Habits(bos=bos)
    if text is None:
        return plain
    try:
        turns = turns_of(render, locate(render, messages, text), text, plain)
    except NotCertainError:
        return plain
    return learned(turns, text, bos) if len(turns) == len(messages) else plain


def parts_of(render: Render, messages: Sequence[Message], text: str, habits: Habits) -> Parts:
    """Return the parts of a rendered conversation.

    Args:
        render: the template.
        messages: the conversation.
        text: what the template makes of it.
        habits: what the template does in every conversation.

    Raises:
        NotCertainError: the place of a text, or the end of an answer, is not certain.
    """
    located = locate(render, messages, text)
    turns = turns_of(render, located, text, habits)
    stretches = _opening(turns, text, habits)
    if turns and stretches:
        turns[0] = replace(turns[0], begin=stretches[-1].stop)
    for turn in turns:
        stretches += _header(turn, turns, text, habits)
        stretches += _inside(turn, text)
        stretches += _end(turn, text, habits)
    stretches.append(Stretch(len(text), None, None, Part.TEMPLATE))
    dropped = sorted({piece.turn for piece in located.dropped if piece.text.strip()})
    return Parts(_merged(stretches), sum(not turn.agrees for turn in turns), tuple(dropped))


def _opening(turns: Sequence[Turn], text: str, habits: Habits) -> list[Stretch]:
    """Return what the template writes before the header of the first turn: a BOS, a system prompt of its own."""
    first = turns[0].found[0].start if turns else len(text)
    end = next((len(each) for each in (habits.opening, habits.bos) if each and text.startswith(each)), 0)
    ending = habits.endings.get(USER, "").strip()
    at = text.rfind(ending, end, first) if ending else -1
    if at >= 0:
        end = at + len(ending)
        end += len(text[end:first]) - len(text[end:first].lstrip())
    return [Stretch(end, None, None, Part.TEMPLATE)] if end else []


def _header(turn: Turn, turns: Sequence[Turn], text: str, habits: Habits) -> Iterator[Stretch]:
    """Yield what stands before the first text of a turn: white space, its header, and what else the answer begins with.

    A system message that the template writes into the turn of the user has that turn's header before it.
    """
    first = turn.found[0]
    before = text[turn.begin : first.start]
    head = before.lstrip() if turn is not turns[0] else before
    at = first.start - len(head)
    yield Stretch(at, None, None, Part.TEMPLATE)
    owner = turn
    if turn.role == SYSTEM and turn is turns[0] and len(turns) > 1 and habits.user_header.strip():
        following = turns[1]
        if head.endswith(habits.user_header) and not text[following.begin : following.found[0].start].strip():
            owner = following
    header = head
    if turn.role == ASSISTANT:
        start = len(common_start((turn.prompt or habits.answer_header).lstrip(), head))
        opened = OPENS.search(head, start)
        if start or (first.piece.part is Part.TOOL_CALL and habits.endings):
            header = head[:start]
        elif opened is not None:
            header = head[: opened.start()]
    yield Stretch(at + len(header), owner.number, owner.role, Part.HEADER)
    yield from _before_text(turn, head[len(header) :], at + len(header))


def _before_text(turn: Turn, rest: str, at: int) -> Iterator[Stretch]:
    """Yield what an answer begins with between its header and its first text."""
    first = turn.found[0]
    if first.piece.part is Part.THINKING:
        opened = OPENS.search(rest)
        yield _of(turn, at + (opened.start() if opened else 0), Part.HEADER)
        yield _of(turn, first.start, Part.THINKING)
        return
    closing = _last_closing(rest)
    yield _of(turn, at + closing, Part.THINKING)
    part = Part.TOOL_CALL if first.piece.part is Part.TOOL_CALL else Part.HEADER
    if turn.role == ASSISTANT and not rest[closing:].strip():
        part = first.piece.part  # white space at the start of what the model writes
    yield _of(turn, first.start, part)


def _inside(turn: Turn, text: str) -> Iterator[Stretch]:
    """Yield the texts of a turn and what stands between them."""
    for index, found in enumerate(turn.found):
        yield _of(turn, found.stop, found.piece.part)
        if index + 1 == len(turn.found):
            return
        following = turn.found[index + 1]
        gap = text[found.stop : following.start]
        parts = {found.piece.part, following.piece.part}
        if found.piece.part is Part.THINKING:
            prompt = gap.find(turn.prompt) if turn.prompt.strip() else -1
            if prompt >= 0:  # the template begins the answer anew after the thinking
                yield _of(turn, found.stop + prompt, Part.THINKING)
                yield _of(turn, following.start, Part.HEADER)
            elif following.piece.part is Part.TOOL_CALL:
                yield _of(turn, found.stop + _last_closing(gap), Part.THINKING)
        part = Part.THINKING if Part.THINKING in parts else Part.TOOL_CALL if Part.TOOL_CALL in parts else Part.CONTENT
        if found.piece.part is Part.THINKING and following.piece.part is Part.TOOL_CALL:
            part = Part.TOOL_CALL
        yield _of(turn, following.start, part)


def _end(turn: Turn, text: str, habits: Habits) -> Iterator[Stretch]:
    """Yield what ends a turn, after what else follows its last text: the rest of a tool call, tools of the prompt."""
    last = turn.found[-1]
    tail = text[last.stop : turn.stop]
    thought = THOUGHT.match(tail) if turn.role == ASSISTANT and last.start == last.stop else None
    if thought is not None:  # an empty answer, with the tags of thinking
        yield _of(turn, last.stop + thought.end(), Part.THINKING)
        tail = tail[thought.end() :]
    usual = [habits.endings.get(turn.role) or habits.endings.get(USER, "")]
    if turn.role == ASSISTANT:
        usual.append(habits.last_ending)
    size = next((len(each) for each in usual if each.strip() and tail.endswith(each)), 0)
    if not size and last.piece.part is not Part.CONTENT:
        control = LAST_CONTROL.search(tail)
        size = len(tail) - control.start() if control else 0
    elif not size:
        size = len(tail)
    rest = {Part.TOOL_CALL: Part.TOOL_CALL, Part.THINKING: Part.THINKING}.get(last.piece.part, Part.TEMPLATE)
    if turn.role == ASSISTANT and rest is Part.TEMPLATE:
        rest = Part.END_OF_TURN
    start = turn.stop - size
    yield _of(turn, start, rest) if rest is not Part.TEMPLATE else Stretch(start, None, None, rest)
    stop = turn.stop - (len(tail) - len(tail.rstrip()) if size else 0)
    yield _of(turn, max(start, stop), Part.END_OF_TURN)
    yield Stretch(turn.stop, None, None, Part.TEMPLATE)


def _of(turn: Turn, stop: int, part: Part) -> Stretch:
    return Stretch(stop, turn.number, turn.role, part)


def _last_closing(text: str) -> int:
    """Return where the last closing tag of thinking ends, white space included; 0 without one."""
    return max((match.end() for match in CLOSES.finditer(text)), default=0)


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return the stretches without empty ones, neighbours of one kind joined."""
    merged: list[Stretch] = []
    at = 0
    for stretch in stretches:
        if stretch.stop <= at:
            continue
        at = stretch.stop
        if merged and replace(merged[-1], stop=at) == stretch:
            merged.pop()
        merged.append(stretch)
    return merged


def with_scored(stretches: Sequence[Stretch], text: str, generated: Sequence[tuple[int, int]]) -> list[Stretch]:
    """Return the stretches cut where the template's {% generation %} blocks begin and end, and scored only inside.

    What belongs to no turn, such as the line end after an answer, belongs to the answer where a block holds it.

    Args:
        stretches: the parts of the text.
        text: what the template wrote.
        generated: first character of each block, and the one after its last.

    Raises:
        NotCertainError: a block holds words of another role than the assistant.
    """
    cut: list[Stretch] = []
    start = 0
    answer: int | None = None
    for stretch in stretches:
        edges = {edge for block in generated for edge in block if start < edge < stretch.stop}
        for stop in [*sorted(edges), stretch.stop]:
            inside = any(first <= start and stop <= last for first, last in generated)
            if (
                inside
                and stretch.role not in (None, ASSISTANT)
                and stretch.part is Part.CONTENT
                and text[start:stop].strip()
            ):
                raise NotCertainError(f"turn {stretch.turn}: a generation block holds words of {stretch.role}")
            cut.append(replace(stretch, stop=stop, scored=inside))
            if stretch.role == ASSISTANT:
                answer = stretch.turn
            elif inside and stretch.role is None:
                cut[-1] = replace(cut[-1], turn=answer, role=ASSISTANT)
            start = stop
    return _merged(cut)


def spans_of(stretches: Sequence[Stretch], text: str) -> tuple[Span, ...]:
    """Return stretches of characters as spans of UTF-8 bytes."""
    spans = []
    at = size = 0
    for each in stretches:
        size += len(text[at : each.stop].encode())
        at = each.stop
        spans.append(Span(size, each.turn, each.role, each.part, each.scored))
    return tuple(spans)
