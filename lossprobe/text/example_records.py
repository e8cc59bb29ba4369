"""Makes the example of a record: a conversation, a prompt with its completion, or a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from lossprobe.errors import BadTextError
from lossprobe.text.examples import Completion, Conversation, DataKind, Example, Pair
from lossprobe.text.kinds import CHAT_KEYS, COMPLETION_KEYS, INSTRUCTION, ONE_RECORD, PAIR_KEYS, kinds_of_record
from lossprobe.text.messages import (
    TEMPLATE_VALUES,
    Message,
    read_message,
    read_messages,
    read_template_values,
    read_tools,
)
from lossprobe.text.records import EMPTY, NoNumber, is_text, json_type
from lossprobe.units import visible

MEDIA = ("images", "image", "videos", "audios")  # keys under which trainers look for what a text model cannot read


def read_example(record: dict[str, Any], kind: DataKind, where: str) -> Example:
    """Return the example of a record, whose keys are taken out of the record.

    Args:
        record: the record.
        kind: what it is read as; not plain text.
        where: file and line, for the start of messages.

    Raises:
        BadTextError: the record is of another kind, or holds something that cannot be read.

    >>> read_example({"prompt": "1+1=", "completion": "2", "id": 7}, DataKind.COMPLETION, "a.jsonl: line 1")
    Completion(prompt='1+1=', completion='2')
    """
    kinds = kinds_of_record(record)
    if kind not in kinds:
        other = next((ONE_RECORD[each] for each in kinds), None)
        found = f"but {other}" if other else f"(found: {_found(record)})"
        raise BadTextError("text.other_kind", f"{where} is not {ONE_RECORD[kind]} {found}")
    for key in MEDIA:
        if record.get(key):
            raise BadTextError("text.not_only_text", f"{where} holds {key}; only text can be scored")
    if kind is DataKind.CHAT:
        return _conversation(record, kinds[kind][0], where)
    if kind is DataKind.COMPLETION:
        return _completion(record, kinds[kind], where)
    return _pair(record, where)


def _found(record: object) -> str:
    """Return the keys of a record for people, with the types of those that say its kind."""
    if not isinstance(record, dict):
        return json_type(record)
    telling = {*CHAT_KEYS, *PAIR_KEYS, *chain(*COMPLETION_KEYS)}
    keys = (f"{key}, which is {json_type(record[key])}" if key in telling else str(key) for key in record)
    return visible("; ".join(keys), 120) or "no keys"


def _conversation(record: dict[str, Any], key: str, where: str) -> Conversation:
    messages = read_messages(record.pop(key), key, where)
    return _with_prompt(record, messages, 0, where)


def _with_prompt(record: dict[str, Any], messages: tuple[Message, ...], prompt: int, where: str) -> Conversation:
    """Return a conversation whose first messages are the prompt, with the tools and template values of its record."""
    values = read_template_values(record.get(TEMPLATE_VALUES), where)
    return Conversation(messages, read_tools(record.pop("tools", None), where), prompt, values)


def _completion(record: dict[str, Any], keys: Sequence[str], where: str) -> Conversation | Completion:
    before, after = (record.pop(key) for key in keys)
    if keys[0] == INSTRUCTION:
        asked = _asked(record, before, where)
        _refuse_other_types({"output": after}, where)
        _refuse_empty(after, "output", where)
        return _with_prompt(record, (asked, {"role": "assistant", "content": after}), 1, where)
    if isinstance(before, list) and isinstance(after, list):
        prompt, answer = read_messages(before, keys[0], where), read_messages(after, keys[1], where)
        return _with_prompt(record, prompt + answer, len(prompt), where)
    _refuse_other_types({keys[0]: before, keys[1]: after}, where)
    _refuse_empty(after, keys[1], where)
    return Completion(before, after)


def _asked(record: dict[str, Any], instruction: Any, where: str) -> Message:
    """Return what the user says by an instruction and the input beside it, which is taken out of the record."""
    more = record.pop("input", None)
    _refuse_other_types({"instruction": instruction, "input": more or ""}, where)
    return {"role": "user", "content": "\n".join(part for part in (instruction, more) if part)}


def _refuse_other_types(texts: dict[str, Any], where: str) -> None:
    if not all(map(is_text, texts.values())):
        held = " and ".join(f"{key} is {json_type(text)}" for key, text in texts.items())
        hint = EMPTY if any(isinstance(text, NoNumber) for text in texts.values()) else None
        raise BadTextError(
            "text.bad_example",
            f"{where}: {held}; all must be strings, or lists of messages",
            hint=hint,
        )


def _refuse_empty(text: str, key: str, where: str) -> None:
    if not text:
        raise BadTextError("text.bad_example", f"{where}: {key} is empty, so that nothing is to be learned")


def _pair(record: dict[str, Any], where: str) -> Pair:
    chosen, rejected = record.pop("chosen"), record.pop("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _pair_of_texts(record, chosen, rejected, where)
    if isinstance(chosen, str) or isinstance(rejected, str):
        _refuse_other_types({"chosen": chosen, "rejected": rejected}, where)
    return _pair_of_messages(record, chosen, rejected, where)


def _pair_of_texts(record: dict[str, Any], chosen: str, rejected: str, where: str) -> Pair:
    _refuse_empty(chosen, "chosen", where)
    _refuse_empty(rejected, "rejected", where)
    prompt = record.pop("prompt", None)
    if prompt is None and record.get(INSTRUCTION):
        asked = _asked(record, record.pop(INSTRUCTION), where)
        side = _with_prompt(record, (asked, {"role": "assistant", "content": chosen}), 1, where)
        return Pair(side, replace(side, messages=(asked, {"role": "assistant", "content": rejected})))
    if prompt is None:
        size = shared_start(chosen, rejected)
        prompt, chosen, rejected = chosen[:size], chosen[size:], rejected[size:]
    _refuse_other_types({"prompt": prompt, "chosen": chosen, "rejected": rejected}, where)
    return Pair(Completion(prompt, chosen), Completion(prompt, rejected))


def _pair_of_messages(record: dict[str, Any], chosen: object, rejected: object, where: str) -> Pair:
    """Return a pair of conversations: each side is a list of messages, or one message."""
    sides = _side(chosen, "chosen", where), _side(rejected, "rejected", where)
    prompt = _prompt_messages(record, sides, alone=isinstance(chosen, dict), where=where)
    first = len(prompt) or shared_start(*sides)
    chosen_side = _with_prompt(record, prompt + sides[0], first, where)
    return Pair(chosen_side, replace(chosen_side, messages=prompt + sides[1]))


def _side(side: object, key: str, where: str) -> tuple[Message, ...]:
    return (read_message(side, f"{where}: {key}"),) if isinstance(side, dict) else read_messages(side, key, where)


def _prompt_messages(
    record: dict[str, Any], sides: tuple[tuple[Message, ...], tuple[Message, ...]], *, alone: bool, where: str
) -> tuple[Message, ...]:
    """Return the messages before both sides; () where the sides hold them.

    A prompt that is a string repeats the first messages of the sides, or else is what the user says; so is an
    instruction, with its input, where there is no prompt.
    """
    prompt = record.get("prompt")
    if isinstance(prompt, list):
        return read_messages(record.pop("prompt"), "prompt", where)
    if alone and prompt is None:  # one message a side, after the conversation so far
        key = next((key for key in CHAT_KEYS if isinstance(record.get(key), list)), None)
        if key is not None:
            return read_messages(record.pop(key), key, where)
    if prompt is not None and not is_text(prompt):
        raise BadTextError("text.bad_example", f"{where}: prompt is {json_type(prompt)}")
    if shared_start(*sides):
        return ()
    if prompt:
        return ({"role": "user", "content": record.pop("prompt")},)
    instruction = record.pop(INSTRUCTION, None) if prompt is None else None
    return (_asked(record, instruction, where),) if instruction else ()


def shared_start(chosen: Sequence[Any], rejected: Sequence[Any]) -> int:
    """Return how many characters or messages at the start of both sides of a pair are the prompt.

    As in TRL 1.16: all that they share; without the last of it where one side is the start of the other, so that each
    keeps an answer; and without a space at its end, which tokenizers put before a word.

    >>> shared_start("The sky is blue.", "The sky is green.")
    10
    >>> shared_start("Yes", "Yes")
    2
    """
    shorter = min(len(chosen), len(rejected))
    size = next((place for place in range(shorter) if chosen[place] != rejected[place]), shorter - 1)
    return size - 1 if size > 0 and chosen[size] != rejected[size] and chosen[size - 1] == " " else size
