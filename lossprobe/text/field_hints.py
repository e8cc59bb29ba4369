"""Says what to do about a record whose fields have other names than those that are read."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

TEXT: Final = "text"  # the field that holds the text unless another one is named
LIKE_TRAINING: Final = frozenset({
    "answer", "chosen", "completion", "contents", "conversation", "dialog", "dialogue", "instruction", "output",
    "prompt", "question", "rejected", "response", "segments",
})  # fmt: skip
TRAINING: Final = (
    "`text_field` names the field of a plain text; other records need messages or conversations, prompt and "
    "completion, instruction and output, or chosen and rejected"
)
# What fields are called in data sets for post-training, by the name that is read; the first that a record has counts.
PROMPTS: Final = ("prompt", "instruction", "question", "query", "problem", "input", "input.messages")
MORE: Final = ("input", "context")
ANSWERS: Final = ("output", "completion", "response", "answer", "solution", "target")
CHOSEN: Final = (
    "chosen", "chosen_response", "response_chosen", "chosen_answer", "preferred", "preferred_output", "winner",
    "accepted",
)  # fmt: skip
REJECTED: Final = (
    "rejected", "rejected_response", "response_rejected", "rejected_answer", "dispreferred", "non_preferred_output",
    "loser",
)  # fmt: skip
MESSAGES: Final = ("dialog", "dialogue", "dialogs", "conversation", "chat", "turns", "body.messages")


def which_field(name: str, fields: Sequence[str]) -> str:
    """Return a hint for a record without a text in a field.

    Args:
        name: the field.
        fields: the fields that the record has, with dots into objects.

    >>> which_field("text", ["txt"]), which_field("body", ["id"])
    ('did you mean `text_field` txt?', '`text_field` takes another name')
    """
    new_names = renaming(fields) if name == TEXT else {}
    if new_names:
        said = ", ".join(f"{old} to {new}" for new, old in new_names.items() if old != new)
        made = ", ".join(f"{new}: .{old}" for new, old in new_names.items())
        return f"name its fields as those that are read, {said}: jq -c '{{{made}}}' makes such JSON Lines"
    near = difflib.get_close_matches(name, [field for field in fields if field != name], 1)
    if near:
        return f"did you mean `text_field` {near[0]}?"
    if name == TEXT and not LIKE_TRAINING.isdisjoint(fields):
        return TRAINING
    return "name the field that holds the text with `text_field`" if name == TEXT else "`text_field` takes another name"


def renaming(fields: Collection[str]) -> Mapping[str, str]:
    """Return which fields of a record stand for those that are read, by the name that is read; {} where none do.

    >>> renaming(["id", "question", "answer"])
    {'instruction': 'question', 'output': 'answer'}
    """
    messages, prompt, answer = (_first(names, fields) for names in (MESSAGES, PROMPTS, ANSWERS))
    chosen, rejected = _first(CHOSEN, fields), _first(REJECTED, fields)
    if messages is not None:
        return {"messages": messages}
    if chosen is not None and rejected is not None:
        asked = (
            {} if prompt is None else {"prompt" if prompt in ("prompt", "input.messages") else "instruction": prompt}
        )
        return asked | {"chosen": chosen, "rejected": rejected}
    if prompt is None or answer is None:
        return {}
    if prompt == "prompt":  # plain text, which no template changes
        return {"prompt": prompt, "completion": answer}
    more = _first([name for name in MORE if name != prompt], fields)
    return {"instruction": prompt} | ({} if more is None else {"input": more}) | {"output": answer}


def _first(names: Sequence[str], fields: Collection[str]) -> str | None:
    return next((name for name in names if name in fields), None)
