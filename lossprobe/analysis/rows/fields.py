"""Groups of documents by a field of their JSONL records."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING

from lossprobe.run.filters import NO_LABEL
from lossprobe.run.reader import Run
from lossprobe.run.schema import LABEL_NAMES
from lossprobe.text.fields import missing_field, names_of
from lossprobe.units import visible

if TYPE_CHECKING:
    import pandas as pd

MOST_SHAPES = 100  # records with different fields that an error reads, to list the fields


def field_source(run: Run, name: str) -> str:
    """Return a SQL relation: `tokens` with one more column, `field`, the text of a JSONL field ("" without it).

    In a run of conversations, "role", "turn" and "part" are those of each token, "(none)" for what belongs to no turn;
    then there is also `copy`, see `label_source`.

    Args:
        run: the run.
        name: the field; dots lead into objects: `data.lang`; or a label of the tokens.

    Raises:
        UsageError: no document has that field.
    """
    if is_label(run, name):
        return label_source(name)
    refuse_missing_field(run, name)
    named = f"(SELECT document, coalesce({field_value(name)}, '') AS field FROM documents)"
    return f"(SELECT tokens.*, field FROM tokens JOIN {named} USING (document))"


def label_source(name: str) -> str:
    """Return a SQL relation: `tokens` with the columns `field`, the text of a label, and `copy`.

    `copy` is the first document that is the same up to the last scored token of this label: where all conversations
    begin with one system prompt, its tokens are copies, and have the same losses. It is null in a document without
    scored tokens of the label.
    """
    prefixes = f"""
        SELECT document, token, unscored, {label_sql(name)} AS field,
               bit_xor(hash(token, token_id)) OVER (PARTITION BY document ORDER BY token) AS prefix
        FROM tokens"""
    ends = f"""
        SELECT document, field, max(token) AS last, max_by(prefix, token) AS prefix
        FROM ({prefixes}) WHERE unscored IS NULL GROUP BY ALL"""
    copies = f"SELECT document, field, min(document) OVER (PARTITION BY field, last, prefix) AS copy FROM ({ends})"
    labelled = f"SELECT *, {label_sql(name)} AS field FROM tokens"
    return f"(SELECT * FROM ({labelled}) LEFT JOIN ({copies}) USING (document, field))"


def is_label(run: Run, name: str) -> bool:
    """Return whether a name is a label of the tokens of a run: role, turn or part."""
    return run.labelled and name in LABEL_NAMES


def label_sql(name: str) -> str:
    """Return SQL for the text of a label of a token."""
    return f"coalesce({name}::VARCHAR, '{NO_LABEL}')"


def label_values(run: Run, name: str) -> list[str]:
    """Return the texts of a label that scored tokens have, in the order of the alphabet, turns by number."""
    found = run.query(f"SELECT DISTINCT {label_sql(name)} AS field FROM tokens WHERE unscored IS NULL")["field"]
    return sorted(found.tolist(), key=label_order)


def why_none(run: Run, condition: str) -> str:
    """Return a hint for a condition that no scored token of a conversation meets: the words that there are, if not its.

    Args:
        run: the run.
        condition: SQL of `run.filters.where_sql`.
    """
    for name, word in re.findall(r"\"(role|part)\" = '([^']*)'", condition):
        known = run.query(f"SELECT DISTINCT {name} AS word FROM tokens WHERE {name} IS NOT NULL ORDER BY 1")["word"]
        if word not in set(known):
            near = difflib.get_close_matches(word, known.tolist(), 1)
            guess = f"did you mean {visible(near[0], 40)}? " if near else ""
            return f"{guess}no token has the {name} {visible(word, 40)!r}: there are {visible(', '.join(known), 200)}"
    return "score what is masked too, with `score` all"


def label_order(value: str) -> tuple[int, str]:
    """Return what sorts the texts of a label: turns by number, other words by the alphabet.

    >>> sorted(["10", "2", "(none)"], key=label_order)
    ['(none)', '2', '10']
    """
    return (int(value), "") if value.isdecimal() else (-1, value)


def refuse_missing_field(run: Run, name: str, asked: str = "`by`") -> None:
    """Refuse a field that no record has.

    Raises:
        UsageError: no document has that field; `asked` says who wanted it. A text that is not scored yet is held
            against the same rule by `text.fields.refuse_missing_field`.
    """
    if not is_label(run, name) and not run.scalar(f"SELECT count({field_value(name)}) FROM documents"):
        shapes = "SELECT any_value(fields) AS one FROM documents WHERE fields <> '' GROUP BY json_structure(fields)"
        records = run.query(f"{shapes} LIMIT {MOST_SHAPES}")["one"]
        known = {found for record in records for found in names_of(json.loads(record))}
        raise missing_field(name, sorted(known), asked)


def record_columns(run: Run) -> str:
    """Return SQL that adds `record_id` and `record_source` to columns of `documents`, where records have such fields.

    They are the fields `id` and `source` of JSONL records: ", … AS record_id", or "" where no record has them.
    """
    known = [name for name in ("id", "source") if run.scalar(f"SELECT count({field_value(name)}) FROM documents")]
    return "".join(f", coalesce({field_value(name)}, '') AS record_{name}" for name in known)


def with_records(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of documents with `record_id` and `record_source`, where records have such fields.

    A table without the column `line` also gets `source` and `line`, of the file.

    Args:
        run: the run.
        table: has the column `document`.
    """
    placed = "line" in table
    columns = record_columns(run) if placed else f", source, line{record_columns(run)}"
    if not columns:
        return table
    chosen = "JOIN (SELECT unnest(?::INTEGER[]) AS document) USING (document)"
    found = run.query(f"SELECT document{columns} FROM documents {chosen}", (table["document"].tolist(),))
    names = [name for name in found.columns if name != "document"]
    texts = [name for name in names if name != "line"]
    found[texts] = found[texts].map(visible)
    merged = table.merge(found, on="document", how="left", validate="many_to_one")
    at = list(table.columns).index("line" if placed else "document") + 1
    return merged[[*table.columns[:at], *names, *table.columns[at:]]]


def label_or_field_condition(run: Run, name: str, value: str) -> str:
    """Return a SQL condition on a row of `tokens`: its label, or else the field of its record, is this text."""
    return f"{label_sql(name)} = {_quoted(value)}" if is_label(run, name) else field_condition(name, value)


def field_condition(name: str, value: str) -> str:
    """Return a SQL condition on a row of `tokens`: its document's record has this text in this field.

    >>> field_condition("a/b", "it's")
    "document IN (SELECT document FROM documents WHERE json_extract_string(fields, '/a~1b') = 'it''s')"
    """
    return f"document IN (SELECT document FROM documents WHERE {field_value(name)} = {_quoted(value)})"


def field_value(name: str) -> str:
    """Return SQL for the text of a field: JSON pointers, in which no name needs quotes.

    Where no field has this name, dots lead into objects, as for the field of the text.
    """
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    whole = f"json_extract_string(fields, {_quoted(pointer)})"
    if "." not in name:
        return whole
    return f"coalesce({whole}, json_extract_string(fields, {_quoted(pointer.replace('.', '/'))}))"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
