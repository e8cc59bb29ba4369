"""The parts of a rendered conversation or completion: who speaks, what it is, and whether it is scored."""

from __future__ import annotations

from dataclasses import dataclass
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
