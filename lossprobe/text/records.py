"""Records of JSON Lines and JSON arrays: each is a text and its other fields."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from lossprobe.errors import BadTextError
from lossprobe.text.field_hints import which_field
from lossprobe.units import visible

EMPTY = "NaN is how pandas writes an empty cell: write null or an empty string in its place"
SPACE = re.compile(r"[ \t\n\r]*")


class NoNumber(str):
    """A number that JSON does not have (NaN, Infinity, 1e999), by its name: a string for JSON, but no text.

    Programs write it for a cell that is empty; taken for a text, it would be scored as the word NaN.
    """

    __slots__ = ()


def is_text(value: object) -> TypeGuard[str]:
    """Return whether a value of JSON is a string.

    >>> is_text("NaN"), is_text(NoNumber("NaN")), is_text(None)
    (True, False, False)
    """
    return isinstance(value, str) and not isinstance(value, NoNumber)


@dataclass(frozen=True)
class JsonRecord:
    """One value of a file of records.

    Attributes:
        value: the value as Python has it; an object becomes a dict.
        repeats: whether an object in it has a key twice. The last value counts, as for most readers of JSON.
    """

    value: Any
    repeats: bool


def read_line(line: str, where: str) -> JsonRecord:
    """Return the record of one line of JSON Lines.

    Args:
        line: the line.
        where: file and line, for the start of messages.

    Raises:
        BadTextError: not JSON.
    """
    reader = _Reader()
    try:
        return reader.record(json.loads(line, **reader.hooks))
    except json.JSONDecodeError as error:
        raise BadTextError("text.bad_record", f"{where} is not JSON: {_said(error)}") from None
    except (ValueError, RecursionError) as error:
        raise BadTextError("text.bad_record", f"{where} is not JSON: {visible(str(error), 80)}") from None


def read_array(text: str, shown: str) -> Iterator[tuple[int, JsonRecord]]:
    """Yield the line on which each element of a JSON array begins, and the element; one element is held at a time.

    Args:
        text: the content of the file.
        shown: how messages name the file.

    Raises:
        BadTextError: not a JSON array; what stands before the fault has been yielded.
    """
    reader = _Reader()
    decoder = json.JSONDecoder(**reader.hooks)
    place = _after_space(text, 0)
    line, counted = 1, 0
    if not text.startswith("[", place):
        raise BadTextError("text.bad_record", f"{shown}: is no JSON array")
    place = _after_space(text, place + 1)
    more = not text.startswith("]", place)
    while more:
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise _cut_off(shown, error) from None
        except (ValueError, RecursionError) as error:
            raise BadTextError(
                "text.bad_record", f"{shown}: line {line} is not JSON: {visible(str(error), 80)}"
            ) from None
        yield line, reader.record(value)
        place = _after_space(text, place)
        more = text.startswith(",", place)
        if more:
            place = _after_space(text, place + 1)
    if not text.startswith("]", place):
        raise _cut_off(shown, json.JSONDecodeError("Expecting ',' or ']'", text, place))
    place = _after_space(text, place + 1)
    if place < len(text):
        raise _cut_off(shown, json.JSONDecodeError("Extra data", text, place))


def split_record(value: Any, name: str, where: str) -> tuple[str, str]:
    """Return the text of a record, and its other fields as a JSON object with sorted keys.

    In the other fields, numbers that JSON does not have (NaN, Infinity, 1e999) become strings and half a surrogate pair
    becomes "?", so that every JSON reader accepts them.

    Args:
        value: the record; its text is taken out of it.
        name: the field that holds the text. Where no field has this name, dots lead into objects: `data.text`.
        where: file and line, for the start of messages.

    Raises:
        BadTextError: not a JSON object, or without a text in the field `name`.

    >>> split_record({"data": {"text": "Hi", "lang": "en"}, "id": 7}, "data.text", "a.jsonl: line 1")
    ('Hi', '{"data": {"lang": "en"}, "id": 7}')
    """
    holder, key = _find(value, name)
    text = None if holder is None else holder[key]
    if holder is None or not is_text(text):
        held = "" if holder is None else f", which holds {json_type(text)}"
        raise BadTextError(
            "text.no_field",
            f"{where} has no text in the field {visible(name, 40)}{held} (found: {_found(value)})",
            hint=EMPTY
            if isinstance(text, NoNumber)
            else which_field(name, list(field_names(value)) if isinstance(value, dict) else []),
        )
    del holder[key]
    refuse_surrogates(text, where)
    return text, fields_to_json(value)


def fields_to_json(fields: dict[str, Any]) -> str:
    """Return fields of a record as a JSON object with sorted keys; half a surrogate pair becomes "?"."""
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, sort_keys=True).encode("utf-8", "replace").decode()


def refuse_surrogates(text: str, where: str) -> None:
    """Refuse a string that UTF-8 cannot encode.

    Raises:
        BadTextError: the string contains half a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadTextError(
            "text.surrogate", f"{where} holds half a surrogate pair at character {error.start}"
        ) from None


def json_type(value: object) -> str:
    """Return the name of the JSON type of a value."""
    names = {str: "a string", bool: "true or false", dict: "an object", list: "an array"}
    return "null" if value is None else names.get(type(value), "a number")


class _Reader:
    """Reads JSON and remembers whether an object had a key twice."""

    def __init__(self) -> None:
        self._repeats = False
        self.hooks: dict[str, Any] = {
            "parse_float": _finite, "parse_constant": NoNumber, "object_pairs_hook": self._object,
        }  # fmt: skip

    def record(self, value: Any) -> JsonRecord:
        """Return a value that was just read, with what was seen in it."""
        record = JsonRecord(value, self._repeats)
        self._repeats = False
        return record

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self._repeats |= len(found) < len(pairs)
        return found


def _find(value: Any, name: str) -> tuple[dict[str, Any] | None, str]:
    """Return the object that holds a field, and the field's key in it; None where there is no such field."""
    if not isinstance(value, dict):
        return None, name
    if name in value:
        return value, name
    first, _, rest = name.partition(".")
    return _find(value.get(first), rest) if rest else (None, name)


def _after_space(text: str, place: int) -> int:
    found = SPACE.match(text, place)
    return place if found is None else found.end()


def _cut_off(shown: str, error: json.JSONDecodeError) -> BadTextError:
    what = f"line {error.lineno} is not JSON: {_said(error)}"
    return BadTextError("text.bad_record", f"{shown}: {what}; the array cannot be read beyond it")


def _said(error: json.JSONDecodeError) -> str:
    place, last = f"at column {error.colno}", error.doc[: error.pos].rstrip()[-1:]
    if error.msg == "Extra data" and error.doc[error.pos :].strip() == ",":
        return f"a comma behind the record {place}"
    if last == "," and error.doc[error.pos : error.pos + 1] in ("]", "}"):
        return f"a comma before the closing bracket {place}"
    return f"{error.msg.removesuffix(' at')} {place}"


def _finite(literal: str) -> float | str:
    value = float(literal)
    return value if math.isfinite(value) else NoNumber(literal)


def _found(value: Any) -> str:
    """Return the fields of a record for people, with dots into objects; of another value, what it is."""
    if not isinstance(value, dict):
        return type(value).__name__
    return visible(", ".join(field_names(value)), 120) or "no fields"


def field_names(record: dict[str, Any], before: str = "") -> Iterator[str]:
    """Yield the names of a record's fields, with dots into objects, short enough for a message."""
    for key, value in record.items():
        shown = f"{before}{visible(key, 40)}"
        if isinstance(value, dict) and value and before.count(".") < 3:
            yield from field_names(value, f"{shown}.")
        else:
            yield shown
