"""The parts of a rendered conversation or completion: who speaks, what it is, and whether it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Part(StrEnum):
    """What a stretch of a rendered conversation is.

    Attributes:
        HEADER: what the template writes before a message, such as the name of its role.
        CONTENT: the content of a message, or plain text.
        THINKING: reasoning, with the tags around it.
        TOOL_CALL: a call of a tool, with the tags around it.
        END_OF_TURN: what tells the model to stop after a message, such as <|im_end|>.
        TEMPLATE: anything else that the template writes: a BOS, a default system prompt, line ends between messages.
    """

    HEADER = "header"
    CONTENT = "content"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    END_OF_TURN = "end_of_turn"
    TEMPLATE = "template"


@dataclass(frozen=True)
class Span:
    """A stretch of a document. The spans of a document tile it: each begins where the one before it ends.

    Attributes:
        byte_stop: where it ends in the document's UTF-8 bytes.
        turn: number of its message, from 0; None for what belongs to no message.
        role: who speaks: "system", "user", "assistant", "tool", …, or "prompt" and "completion" where the record is
            plain text; None for what belongs to no message.
        part: what it is.
        scored: whether its tokens get a loss.
    """

    byte_stop: int
    turn: int | None
    role: str | None
    part: Part
    scored: bool = True


def cut_spans(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """Return the spans of the first `size` bytes of a document."""
    starts = (0, *(span.byte_stop for span in spans))
    kept = (span for start, span in zip(starts, spans, strict=False) if start < size)
    return tuple(replace(span, byte_stop=min(span.byte_stop, size)) for span in kept)


SAID = frozenset({Part.CONTENT, Part.THINKING, Part.TOOL_CALL, Part.END_OF_TURN})  # what a model writes of a turn


def choose_scored(spans: Sequence[Span], score: str, prompt_turns: int) -> tuple[Span, ...]:
    """Return spans with `scored` as the option `score` asks; see `plan.options.ScoreOptions`.

    Args:
        spans: the spans of a document. Where some are not scored, the template marks what the assistant writes, and of
            its turns just those are chosen that are scored.
        score: "auto", "all", "assistant", "last-turn", "completion", or roles joined by commas.
        prompt_turns: number of turns at the start that are the prompt; 0 where the record has none.

    >>> spans = [Span(2, 0, "user", Part.CONTENT), Span(4, 1, "assistant", Part.HEADER),
    ...          Span(6, 1, "assistant", Part.CONTENT)]
    >>> [span.scored for span in choose_scored(spans, "auto", 0)]
    [False, False, True]
    """
    if score == "auto":
        score = "completion" if prompt_turns else "assistant"
    if score == "all":
        return tuple(replace(span, scored=True) for span in spans)
    if score == "completion":
        first = next((at for at, span in enumerate(spans) if _completes(span, prompt_turns)), len(spans))
        return tuple(replace(span, scored=at >= first) for at, span in enumerate(spans))
    roles = {"assistant"} if score == "last-turn" else set(score.split(","))
    marked = not all(span.scored for span in spans)
    said = [
        span.role in roles and (span.scored if marked and span.role == "assistant" else span.part in SAID)
        for span in spans
    ]
    if score == "last-turn":
        last = max((span.turn for span, chosen in zip(spans, said, strict=True) if chosen and span.turn is not None),
                   default=None)  # fmt: skip
        said = [chosen and span.turn == last for span, chosen in zip(spans, said, strict=True)]
    return tuple(replace(span, scored=chosen) for span, chosen in zip(spans, said, strict=True))


def _completes(span: Span, prompt_turns: int) -> bool:
    """Return whether a span belongs to the completion; the header of the first answer still belongs to the prompt."""
    return span.turn is not None and span.turn >= prompt_turns and span.part in SAID
