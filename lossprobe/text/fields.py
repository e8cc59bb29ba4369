"""The fields of a text's records that a user names: a field that no record has is refused."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lossprobe.errors import UsageError
from lossprobe.text.records import field_names
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.text.documents import Document

SHOWN_FIELDS = 10
LABELS = frozenset({"role", "turn", "part"})  # of the tokens of conversations, completions and pairs
SLICES = ("class", "context", "document", "frequency", "token", "type")  # what `by` takes beside fields, in some view


def refuse_missing_field(documents: Iterable[Document], name: str, asked: str = "`by`") -> None:
    """Refuse a field that no record of a text has; a record whose value is null does not have it.

    Args:
        documents: the text, read no further than the first record with the field.
        name: the field; dots lead into objects: `data.lang`; or a label of the tokens of conversations.
        asked: who wants it, for the message.

    Raises:
        UsageError: no document has the field.
    """
    known: set[str] = set()
    for document in documents:
        if document.example is not None and name in LABELS:
            return
        fields = json.loads(document.fields) if document.fields else {}
        if _value(fields, name) is not None:
            return
        known |= names_of(fields)
    raise missing_field(name, sorted(known), asked)


def names_of(fields: dict[str, Any]) -> set[str]:
    """Return the names of fields, with dots into objects; an object that held only the text is none.

    >>> sorted(names_of({"data": {}, "id": 7, "meta": {"lang": "en"}}))
    ['id', 'meta.lang']
    """
    return {name for name in field_names(fields) if _value(fields, name) != {}}


def _value(fields: dict[str, Any], name: str) -> object:
    """Return the value of a field; where no field has this name, dots lead into objects. None without one."""
    if fields.get(name) is not None or "." not in name:
        return fields.get(name)
    value: Any = fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def refuse_missing_value(documents: Iterable[Document], name: str, value: str, asked: str) -> None:
    """Refuse a value that a field has in no record of a text.

    Args:
        documents: the text, read no further than the first record with the value; of conversations the role, turn and
            part are those of tokens, and any value is allowed.
        name: the field.
        value: its text; numbers and other values that are no text are not looked at.
        asked: who wants it, for the message.

    Raises:
        UsageError: the field is a text wherever it is there, and never this one.
    """
    known: set[str] = set()
    for document in documents:
        if document.example is not None and name in LABELS:
            return
        found = _value(json.loads(document.fields), name) if document.fields else None
        if found == value or not isinstance(found, str | None):
            return
        known |= set() if found is None else {found}
    shown = visible(", ".join(sorted(known)[:SHOWN_FIELDS]), 200)
    raise UsageError(
        "fields.missing", f"{asked} {visible(value, 40)!r}: no record has this in the field {visible(name, 40)}",
        hint=f"found there: {shown}",
    )  # fmt: skip


def missing_field(name: str, known: Sequence[str], asked: str) -> UsageError:
    """Return the error for a field that no document has; `known` are the fields of the records, in order."""
    shown = visible(", ".join(known[:SHOWN_FIELDS]), 200)
    near = difflib.get_close_matches(name, [*known, *(SLICES if asked == "`by`" else ())], 1)
    listed = f"fields of the records: {shown}" if shown else "no document is a record with fields beside its text"
    return UsageError(
        "fields.missing", f"{asked} {visible(name, 40)}: no document has this field",
        hint=listed + (f"; did you mean {visible(near[0], 40)}?" if near else ""),
    )  # fmt: skip
