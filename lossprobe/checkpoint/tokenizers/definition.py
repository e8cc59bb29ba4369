"""What a tokenizer.json says about its model."""

from __future__ import annotations

import json
from typing import Any

NOWHERE = "\ufffe\uffff"  # two noncharacters of Unicode, which no text holds


def is_unigram(definition: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json has a Unigram model, whose vocabulary is a list of scores."""
    return isinstance(definition["model"].get("vocab"), list)


def without_specials(content: dict[str, Any]) -> str:
    """Return a Unigram definition that never makes a special token out of text.

    Unigram uses every vocabulary entry that fits the text, so the names of special tokens are made impossible to find.
    The other models need no such change.
    """
    added = content.get("added_tokens") or []
    special = {entry["content"] for entry in added if entry.get("special")}
    vocabulary = [[NOWHERE + piece if piece in special else piece, score] for piece, score in content["model"]["vocab"]]
    plain = [entry for entry in added if not entry.get("special")]
    return json.dumps(content | {"added_tokens": plain, "model": content["model"] | {"vocab": vocabulary}})


def unknown_token(definition: dict[str, Any]) -> str:
    """Return the token that the model gives for text outside its vocabulary, or ""."""
    model = definition["model"]
    if isinstance(model.get("unk_id"), int) and is_unigram(definition):
        return str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token") or ""
