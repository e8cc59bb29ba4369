"""Reads the messages and tools of a record, as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lossprobe.errors import BadTextError
from lossprobe.text.records import is_text, json_type
from lossprobe.units import visible

# Names of speakers in records with "from" and "value" (ShareGPT) → roles of chat templates.
SPEAKERS = {"human": "user", "gpt": "assistant", "observation": "tool"}
CALL = "function_call"  # a speaker whose value is the JSON of the call: {"name": …, "arguments": …}, or a list of them
TEMPLATE_VALUES = "chat_template_kwargs"  # the key of TRL (SFTTrainer and DPOTrainer) for what its templates get
TAKEN = frozenset({
    "messages", "conversation", "conversations", "tools", "chat_template", "add_generation_prompt",
    "continue_final_message", "return_assistant_tokens_mask", "tokenize", "return_dict", "strftime_now",
    "raise_exception",
})  # fmt: skip
AS_CALLS = "chat templates read a tool's call from the key tool_calls, and its result from a message with the role tool"
REASONING = ("reasoning_content", "reasoning", "thinking")
# Key of a message → value with which a trainer gives it no loss: OpenAI, axolotl (two names), ms-swift, torchtune.
WITHOUT_LOSS: Mapping[str, float | bool] = {
    "weight": 0,
    "train": False,
    "training": False,
    "loss": False,
    "masked": True,
}

Message = Mapping[str, Any]


def read_messages(value: object, key: str, where: str) -> tuple[Message, ...]:
    """Return the messages of a record, each with "role", and "content" as a string.

    Args:
        value: a list of messages with "role" and "content", or with "from" and "value"; or the JSON of such a list.
        key: the key of the record that holds it, for messages.
        where: file and line, for the start of messages.

    Raises:
        BadTextError: no such list, an empty one, or a message that cannot be read.

    >>> read_messages([{"from": "human", "value": "Hi"}], "conversations", "a.jsonl: line 1")
    ({'role': 'user', 'content': 'Hi'},)
    """
    if isinstance(value, str):
        value = _parsed(value, f"{where}: {key}")
    if not isinstance(value, list):
        raise BadTextError("text.bad_messages", f"{where}: {key} holds {json_type(value)}, not a list of messages")
    if not value:
        raise BadTextError("text.bad_messages", f"{where}: {key} holds no message")
    return tuple(read_message(message, f"{where}: {key}: message {n}") for n, message in enumerate(value, start=1))


def read_message(message: object, where: str) -> Message:
    """Return one message as chat templates take it. Keys whose value is null are left out.

    Raises:
        BadTextError: a message without role, without anything said, or with something that is no text.
    """
    if not isinstance(message, dict):
        raise BadTextError("text.bad_messages", f"{where} is {json_type(message)}, not an object")
    read = {key: value for key, value in message.items() if value is not None}
    if "role" not in read and "from" in read:
        read = _from_value(read, where)
    role = read.get("role")
    if not isinstance(role, str) or not role:
        held = f" (found: {visible(', '.join(map(str, message)), 80) or 'no keys'})" if role is None else ""
        raise BadTextError("text.bad_messages", f"{where} has no role{held}")
    where = f"{where} ({visible(role, 20)})"
    if "content" in read:
        read["content"] = _content(read["content"], where)
    if isinstance(read.get("tool_calls"), str):
        read["tool_calls"] = _parsed(read["tool_calls"], f"{where}: tool_calls")
    _check(read, where)
    return read


def read_tools(value: object, where: str) -> tuple[Mapping[str, Any], ...]:
    """Return the JSON schemas of the tools of a record, which are a list or its JSON; () for none.

    Raises:
        BadTextError: something else.
    """
    if isinstance(value, str) and value.strip():
        value = _parsed(value, f"{where}: tools")
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadTextError("text.bad_messages", f"{where}: tools is no list of objects")
    return tuple(value)


def read_template_values(value: object, where: str) -> Mapping[str, Any]:
    """Return what a record gives the chat template beside the messages, its chat_template_kwargs; {} for none.

    Names that the template or its renderer has already are refused: messages, tools, special tokens and the like.

    Raises:
        BadTextError: no object, or one with such a name.

    >>> read_template_values({"enable_thinking": False}, "a.jsonl: line 1")
    {'enable_thinking': False}
    """
    if isinstance(value, str) and value.strip():
        value = _parsed(value, f"{where}: {TEMPLATE_VALUES}")
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise BadTextError("text.bad_messages", f"{where}: {TEMPLATE_VALUES} is {json_type(value)}, not an object")
    taken = next((name for name in value if name in TAKEN or name.endswith(("_token", "_tokens"))), None)
    if taken is not None:
        what = f"{TEMPLATE_VALUES} sets {visible(taken, 40)}, which the template has already"
        raise BadTextError("text.bad_messages", f"{where}: {what}")
    return value


def marks_without_loss(messages: Sequence[Message]) -> list[str]:
    """Return by which marks answers of a conversation have no loss in trainers, as "weight 0"; [] for none.

    >>> marks_without_loss([{"role": "user", "masked": True}, {"role": "assistant", "train": False}])
    ['train false']
    """
    said = [message for message in messages if message["role"] == "assistant"]
    return [
        f"{key} {json.dumps(value)}"
        for key, value in WITHOUT_LOSS.items()
        if any(message.get(key) == value and message.get(key) is not None for message in said)
    ]


def _from_value(message: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a message with "from" and "value" as one with "role" and "content"."""
    rest = {key: value for key, value in message.items() if key not in ("from", "value")}
    speaker, said = message["from"], message.get("value")
    if speaker == CALL:
        calls = _parsed(said, f"{where} ({CALL})") if isinstance(said, str) else said
        return {"role": "assistant", "tool_calls": [_call(call, where) for call in _as_list(calls)]} | rest
    role = SPEAKERS.get(speaker, speaker) if isinstance(speaker, str) else speaker
    return {"role": role} | ({} if said is None else {"content": said}) | rest


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _call(call: Any, where: str) -> dict[str, Any]:
    """Return the call of a tool in the form that chat templates read."""
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise BadTextError("text.bad_messages", f"{where} ({CALL}) is no call with a name and arguments")
    return {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}


def _content(content: object, where: str) -> str:
    """Return what a message says; the texts of a list of parts are joined, as templates write one after the other."""
    if is_text(content):
        return content
    if not isinstance(content, list):
        raise BadTextError("text.bad_messages", f"{where}: content is {json_type(content)}, not a string")
    return "".join(_part(part, where) for part in content)


def _part(part: object, where: str) -> str:
    """Return the text of one part of a message."""
    if not isinstance(part, dict):
        raise BadTextError("text.bad_messages", f"{where}: a part of content is {json_type(part)}, not an object")
    kind = part.get("type", "text")
    if kind != "text":
        raise BadTextError(
            "text.not_only_text",
            f"{where}: content has a part of type {visible(str(kind), 30)}; only text can be scored",
            hint=AS_CALLS if kind in ("tool_use", "tool_result") else None,
        )
    if not is_text(part.get("text")):
        raise BadTextError("text.bad_messages", f"{where}: a part of content has no text")
    return str(part["text"])


def _check(message: Message, where: str) -> None:
    """Refuse a message that says nothing, or whose calls and reasoning are of other types."""
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise BadTextError("text.bad_messages", f"{where}: tool_calls is no list of objects")
    for key in REASONING:
        if not is_text(message.get(key, "")):
            raise BadTextError("text.bad_messages", f"{where}: {key} is {json_type(message[key])}, not a string")
    if "content" not in message and not calls and not any(message.get(key) for key in REASONING):
        raise BadTextError("text.bad_messages", f"{where} has neither content nor tool calls")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadTextError("text.bad_messages", f"{where} is a string that is not JSON") from None
