"""Parses one line of a JSONL file into its text and its other fields."""

from __future__ import annotations

import json
import math
from typing import Any

from lossprobe.errors import TextError
from lossprobe.units import visible


def parse_record(line: str, name: str, where: str) -> tuple[str, str, bool]:
    """Return the text of one JSONL line, its other fields, and whether a key repeats.

    If a key repeats in an object, its last value counts, as in most JSON readers. In the other fields, numbers that
    JSON does not have (NaN, Infinity, 1e999) become strings and half a surrogate pair becomes "?", so that every JSON
    reader accepts them.

    Args:
        line: the line.
        name: the field that holds the text.
        where: file and line, for the start of messages.

    Returns:
        The text; the other fields as a JSON object with sorted keys; True where a key stands twice in an object.

    Raises:
        TextError: the line is not a JSON object, or has no string in the field `name`.
    """
    sizes: list[tuple[int, int]] = []

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        sizes.append((len(pairs), len(found)))
        return found

    try:
        record = json.loads(line, parse_float=_finite, parse_constant=str, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        raise TextError("text.bad_record", f"{where} is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise TextError("text.bad_record", f"{where} is not JSON: {visible(str(error), 80)}") from None
    if not isinstance(record, dict) or not isinstance(record.get(name), str):
        held = f", which holds {_kind(record[name])}" if isinstance(record, dict) and name in record else ""
        raise TextError(
            "text.no_field",
            f"{where} has no text in the field {visible(name, 40)}{held} (found: {_found(record)})",
            hint="name the field that holds the text with `text_field`",
        )
    text = record.pop(name)
    refuse_surrogates(text, where)
    fields = json.dumps(record, ensure_ascii=False, allow_nan=False, sort_keys=True)
    return text, fields.encode("utf-8", "replace").decode(), any(given != kept for given, kept in sizes)


def refuse_surrogates(text: str, where: str) -> None:
    """Refuse a string that UTF-8 cannot encode.

    Raises:
        TextError: the string contains half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError("text.surrogate", f"{where} holds half a surrogate pair at character {error.start}") from None


def _finite(literal: str) -> float | str:
    value = float(literal)
    return value if math.isfinite(value) else literal


def _kind(value: Any) -> str:
    """Return the name of the JSON type of a value that is not a string."""
    names = {bool: "true or false", dict: "an object", list: "an array"}
    return "null" if value is None else names.get(type(value), "a number")


def _found(record: Any) -> str:
    if not isinstance(record, dict):
        return type(record).__name__
    return visible(", ".join(visible(key, 20) for key in record), 120) or "no fields"
