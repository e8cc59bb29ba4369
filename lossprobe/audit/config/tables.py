"""Reads the tables of an audit file, refuses unknown keys and bad values, and gives the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossprobe.audit.config.document import AuditFile
from lossprobe.audit.config.schema import ALL_KEYS, HEADERS, SCHEMA_VERSION, TOP_LEVEL, Keys, other_table
from lossprobe.audit.config.toml_lines import KeyPath
from lossprobe.errors import UsageError
from lossprobe.objects.address import address_of
from lossprobe.options.kinds import BadValueError, File, Kind, name_of, nearest, shown_value
from lossprobe.units import visible


def check_shape(document: AuditFile) -> None:
    """Refuse a document with another schema version, an unknown table, or a value where a table must be.

    Raises:
        UsageError: the document is refused.
    """
    content = document.content
    if "schema" not in content:
        raise document.error("schema", (), "no schema", hint=f"write schema = {SCHEMA_VERSION} at its start")
    schema = content["schema"]
    if isinstance(schema, bool) or schema != SCHEMA_VERSION or not isinstance(schema, int):
        shown = f"schema = {shown_value(schema)}: this lossprobe reads schema {SCHEMA_VERSION}"
        raise document.error("schema", ("schema",), shown)
    for name, value in content.items():
        if name not in TOP_LEVEL:
            raise _unknown_top(document, name)
        if name != "schema":
            _check_tables(document, name, value)


def read_table(document: AuditFile, keys: KeyPath, required: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values that the table at `keys` sets, in the types of the settings.

    Args:
        document: the audit file.
        keys: path of the table.
        required: keys that the table must set.

    Raises:
        UsageError: an unknown key, a value that its key cannot have, or a required key that is missing.
    """
    schema = ALL_KEYS[str(keys[0])]
    table = _table(document, keys)
    for key in table:
        if key not in schema:
            text = f'unknown key "{visible(key, 60)}" in {header(document, keys)}'
            hint = nearest(key, schema) or other_table(key, str(keys[0]))
            raise document.error("unknown_key", (*keys, key), text, hint=hint)
    values = {key: _value(document, (*keys, key), kind, table[key]) for key, kind in schema.items() if key in table}
    for key in required:
        if key not in values:
            raise document.error("missing_key", keys, f"{key} is missing in {header(document, keys)}")
    return values


def table_origins(document: AuditFile, keys: KeyPath, label: str, schema: Keys) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the origin of each setting of a table, in the order of the schema."""
    table = _table(document, keys)
    for key in schema:
        yield f"{label}.{key}", document.origin(*keys, key) if key in table else "default"


def header(document: AuditFile, keys: KeyPath) -> str:
    """Return the header of a table, for messages."""
    names = document.named(*(key for key in keys if isinstance(key, str)))
    return f"[[{names}]]" if keys[0] == "check" else f"[{names}]"


def _table(document: AuditFile, keys: KeyPath) -> dict[str, Any]:
    table: Any = document.content
    for key in keys:
        table = table.get(key, {}) if isinstance(table, dict) else table[key]
    content: dict[str, Any] = table
    return content


def _value(document: AuditFile, keys: KeyPath, kind: Kind, value: object) -> Any:
    try:
        read = kind.read(value)
    except BadValueError as error:
        text = f"{keys[-1]} = {shown_value(value)} in {header(document, keys[:-1])}: {error}"
        raise document.error("value", keys, text, hint=error.hint) from None
    if isinstance(kind, File) and keys not in document.overridden and address_of(Path(str(read))) is None:
        return document.path.parent / str(read)
    return read


def _unknown_top(document: AuditFile, name: str) -> UsageError:
    kind = "table" if isinstance(document.content[name], dict | list) else "key"
    hint = nearest(name, TOP_LEVEL) or other_table(name, "")
    return document.error("unknown_key", (name,), f'unknown {kind} "{visible(name, 60)}"', hint=hint)


def _check_tables(document: AuditFile, name: str, value: object) -> None:
    shown = HEADERS[name] if not document.root else HEADERS[name].replace(name, document.named(name), 1)
    if name == "check":
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise document.error("type", (name,), f"check must be tables with the header {shown}")
        return
    if not isinstance(value, dict):
        raise document.error("type", (name,), f"{name} must be a table with the header {shown}, not {name_of(value)}")
    for entry, table in value.items() if name == "data" else ():
        if not isinstance(table, dict):
            text = f"{visible(entry, 60)} in [{document.named('data')}]: must be in a table with the header {shown}"
            raise document.error("type", (name, entry), text)
