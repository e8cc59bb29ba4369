"""Tells from the keys of a record what it holds: plain text, a conversation, a prompt and its completion, or a pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lossprobe.text.examples import DataKind
from lossprobe.text.records import is_text, json_type

AUTO = "auto"
CHAT_KEYS = ("messages", "conversations")
PAIR_KEYS = ("chosen", "rejected")
INSTRUCTION = "instruction"  # what the user says: before an output, and before a pair without a prompt
COMPLETION_KEYS = (("prompt", "completion"), (INSTRUCTION, "output"))
ONE_RECORD = {
    DataKind.TEXT: "plain text",
    DataKind.CHAT: "a conversation",
    DataKind.COMPLETION: "a prompt with its completion",
    DataKind.PAIRS: "a pair",
}
RECORDS = {
    DataKind.TEXT: "plain text",
    DataKind.CHAT: "conversations",
    DataKind.COMPLETION: "prompts with completions",
    DataKind.PAIRS: "pairs",
}


def kinds_of_record(record: object) -> dict[DataKind, tuple[str, ...]]:
    """Return what a record can be read as, each with the keys that hold it; the first is what it is taken for.

    A key whose value is null counts as absent.

    >>> kinds_of_record({"messages": [{"role": "user", "content": "Hi"}], "text": "Hi"})
    {<DataKind.CHAT: 'chat'>: ('messages',), <DataKind.TEXT: 'text'>: ('text',)}
    """
    if not isinstance(record, Mapping):
        return {}
    found: dict[DataKind, tuple[str, ...]] = {}
    chat = next((key for key in CHAT_KEYS if _holds_messages(record.get(key))), None)
    if chat is not None and all(isinstance(record.get(key), dict) for key in PAIR_KEYS):
        found[DataKind.PAIRS] = (chat, *PAIR_KEYS)  # two answers to that conversation
    if chat is not None:
        found[DataKind.CHAT] = (chat,)
    if _all_held(record, PAIR_KEYS) and DataKind.PAIRS not in found:
        asked = record.get("prompt") is None and is_text(record.get(INSTRUCTION)) and bool(record[INSTRUCTION])
        found[DataKind.PAIRS] = (INSTRUCTION, *PAIR_KEYS) if asked else PAIR_KEYS
    completion = next((keys for keys in COMPLETION_KEYS if _all_held(record, keys)), None)
    if completion is not None:
        found[DataKind.COMPLETION] = completion
    if is_text(record.get("text")):
        found[DataKind.TEXT] = ("text",)
    return found


def why_no_kind(record: object) -> str:
    """Return why a record with the keys of a kind is none of it, such as "chosen is null"; "" for other records.

    >>> why_no_kind({"chosen": None, "rejected": "Hi"}), why_no_kind({"messages": "Hi"}), why_no_kind({"id": 7})
    ('chosen is null', 'messages is a string, not a list of messages', '')
    """
    if not isinstance(record, Mapping):
        return ""
    chat = next((key for key in CHAT_KEYS if key in record), None)
    if chat is not None:
        return f"{chat} is {json_type(record[chat])}, not a list of messages"
    keys = next((keys for keys in (PAIR_KEYS, *COMPLETION_KEYS) if all(key in record for key in keys)), ())
    wrong = (f"{key} is {json_type(record[key])}" for key in keys if not _holds(record[key]))
    return ", ".join(wrong)


def _holds_messages(value: object) -> bool:
    """Return whether a value can be a list of messages, also one that is written as a JSON string."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _all_held(record: Mapping[str, Any], keys: Sequence[str]) -> bool:
    return all(_holds(record.get(key)) for key in keys)


def _holds(value: object) -> bool:
    """Return whether a value can be a side of a pair, a prompt or a completion."""
    return is_text(value) or isinstance(value, list | dict)
