"""What a record of post-training data holds, before a checkpoint's chat template makes a text of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lossprobe.text.records import is_text


class DataKind(StrEnum):
    """What the records of a text hold.

    Attributes:
        TEXT: plain text.
        CHAT: conversations.
        COMPLETION: prompts, each with the completion that is to be learned.
        PAIRS: pairs of a chosen and a rejected answer.
    """

    TEXT = "text"
    CHAT = "chat"
    COMPLETION = "completion"
    PAIRS = "pairs"


@dataclass(frozen=True)
class Conversation:
    """The messages of a conversation.

    Attributes:
        messages: each has "role" and mostly "content" (a string), and may have "reasoning_content", "tool_calls",
            "name" and the like, as chat templates read them. Keys whose value is null are left out.
        tools: the JSON schemas of the tools that the model is told of; () for none.
        prompt_messages: number of messages at the start that are the prompt; 0 where the record does not say.
        template_values: what else the template is given, by name, such as {"enable_thinking": False}.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    prompt_messages: int = 0
    template_values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Completion:
    """A prompt and its completion as plain text, which no template changes.

    Attributes:
        prompt: the text before the completion, "" for none.
        completion: the text that is to be learned.
    """

    prompt: str
    completion: str


@dataclass(frozen=True)
class Pair:
    """Two answers to the same prompt, of which one is preferred."""

    chosen: Conversation | Completion
    rejected: Conversation | Completion


Example = Conversation | Completion | Pair


def example_to_json(example: Example) -> str:
    """Return an example as JSON that is the same for the same example; keys keep their order, which templates print."""
    held = {"holds": type(example).__name__, **_attributes(example)}
    return json.dumps(held, default=_attributes, ensure_ascii=False, separators=(",", ":"))


def _attributes(example: Any) -> dict[str, Any]:
    """Return the attributes of an example, without values for the template where it has none."""
    return {name: value for name, value in vars(example).items() if name != "template_values" or value}


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a value of JSON with each string in it changed, but no key."""
    if is_text(value):
        return change(value)
    if isinstance(value, list):
        return [with_texts(each, change) for each in value]
    return {key: with_texts(each, change) for key, each in value.items()} if isinstance(value, dict) else value


def memory_of(example: Example | None) -> int:
    """Return about how many bytes of memory an example takes."""
    size, left = 0, list[Any]([example])  # not a function that calls itself: JSON may be nested deeply
    while left:
        value = left.pop()
        size += sys.getsizeof(value)
        if isinstance(value, Conversation | Completion | Pair):
            left += vars(value).values()
        elif isinstance(value, Mapping | list | tuple):
            left += value.values() if isinstance(value, Mapping) else value
    return size
