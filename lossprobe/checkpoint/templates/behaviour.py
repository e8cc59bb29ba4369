"""What a chat template does, shown with conversations that are made for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossprobe.checkpoint.templates.fields import Message
from lossprobe.checkpoint.templates.located import NotCertainError, Render
from lossprobe.checkpoint.templates.parts import Parts, parts_of
from lossprobe.checkpoint.templates.turns import Habits
from lossprobe.checkpoint.templates.units import ASSISTANT, SYSTEM, USER
from lossprobe.text.spans import Part

SHORTEST: list[Message] = [{"role": USER, "content": "Ask."}, {"role": ASSISTANT, "content": "Say."}]
QUESTION, ANSWER, THOUGHT = " Ask it. ", " Say it. ", "Think of it."


@dataclass(frozen=True)
class Behaviour:
    """What a chat template does; None where it does not render the conversation that would show it.

    Attributes:
        generation_markers: whether it marks what the assistant writes, with {% generation %}.
        bos: whether it writes the BOS.
        prefix_preserving: whether a turn is rendered in the same way when more turns follow.
        keeps_thinking: of which answers it writes the reasoning: "all", "last" or "none".
        strips_space: whether it removes white space around contents.
        takes_system: whether it renders a system message.
        own_system: whether it writes a system prompt of its own where the conversation has none.
        dated: whether it writes today's date, which is fixed at 26 July 2024.
        fault: what it raises for a question with its answer, or why the parts of what it writes are not certain; None
            where it renders them.
    """

    generation_markers: bool
    bos: bool
    prefix_preserving: bool | None
    keeps_thinking: str | None
    strips_space: bool | None
    takes_system: bool
    own_system: bool
    dated: bool
    fault: str | None


def behaviour_of(render: Render, habits: Habits, *, marked: bool, dated: bool, fault: str | None) -> Behaviour:
    """Return what a template does.

    Args:
        render: the template.
        habits: what is known of it.
        marked: whether it has generation blocks.
        dated: whether it asked for the date.
        fault: as in `Behaviour`.
    """
    plain: list[Message] = [{"role": USER, "content": QUESTION}, {"role": ASSISTANT, "content": ANSWER}] * 2
    thinking = [{**each, "reasoning_content": THOUGHT} if each["role"] == ASSISTANT else each for each in plain]
    text = render(plain, False)
    changed, strips = _plain(render, plain, text, habits)
    kept, changed_thinking = _thinking(render, thinking, habits)
    preserving = None if changed is None or changed_thinking is None else not (changed or changed_thinking)
    return Behaviour(
        generation_markers=marked,
        bos=bool(habits.bos) and text is not None and text.startswith(habits.bos),
        prefix_preserving=preserving,
        keeps_thinking=kept,
        strips_space=strips,
        takes_system=_takes_system(render, plain),
        own_system=bool(habits.opening.removeprefix(habits.bos).strip()) and " " in habits.opening.strip(),
        dated=dated,
        fault=fault,
    )


def _plain(
    render: Render, messages: Sequence[Message], text: str | None, habits: Habits
) -> tuple[bool | None, bool | None]:
    """Return whether earlier turns are changed by later ones, and whether space around contents is removed."""
    parts = _parts(render, messages, text, habits)
    if text is None or parts is None:
        return None, None
    at, contents = 0, []
    for each in parts.stretches:
        if each.part is Part.CONTENT:
            contents.append(text[at : each.stop])
        at = each.stop
    return parts.changed_turns > 0, any(content == content.strip() for content in contents)


def _thinking(render: Render, messages: Sequence[Message], habits: Habits) -> tuple[str | None, bool | None]:
    """Return of which answers the reasoning is written, and whether earlier turns are changed by later ones."""
    text = render(messages, False)
    parts = _parts(render, messages, text, habits)
    if text is None or parts is None:
        return None, None
    kept = {0: "none", 1: "last"}.get(text.count(THOUGHT), "all")
    return kept, parts.changed_turns > 0


def _parts(render: Render, messages: Sequence[Message], text: str | None, habits: Habits) -> Parts | None:
    """Return the parts of a rendered text; None where it was refused, or they are not certain."""
    try:
        return None if text is None else parts_of(render, messages, text, habits)
    except NotCertainError:
        return None


def _takes_system(render: Render, messages: Sequence[Message]) -> bool:
    text = render([{"role": SYSTEM, "content": "Be kind."}, *messages], False)
    return text is not None and "Be kind." in text
