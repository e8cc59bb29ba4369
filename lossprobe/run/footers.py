"""Compares the footer of a Parquet file with the columns, types and value ranges of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.run.schema import DIVERGENCES, LABELS, LADDER_KEYS, MEASURED, Column, columns_of
from lossprobe.units import visible

INTEGERS = (pa.int16(), pa.int32(), pa.int64())
# Columns that may be null in any row.
FREE = frozenset({"unscored", "fields", "text", *(column.name for column in (*LABELS, *DIVERGENCES))})
SCORED = frozenset(column.name for column in MEASURED)  # null exactly where `unscored` has a reason
ENTRIES = frozenset({"token_id", "top_id"})
ROUNDED_ONE = 1.001  # a probability is the exponential of a rounded number


def read_footer(stream: io.BufferedReader, table: str, names: Sequence[str] | None = None) -> pq.FileMetaData:
    """Return the footer of a Parquet file that must have some or all columns of a table.

    Args:
        stream: the file.
        table: name of the run's table that the file belongs to.
        names: the columns that it must have; None for all.

    Raises:
        ValueError: it is not a Parquet file, or has other columns.
    """
    try:
        footer = pq.read_metadata(stream)
        found = footer.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"is no Parquet file: {visible(str(error).splitlines()[0], 120)}") from None
    columns = columns_of(table, len(found) - len(LADDER_KEYS), labelled=LABELS[0].name in found.names)
    fault = _schema_fault(found, [column for column in columns if names is None or column.name in names])
    if fault is not None:
        raise ValueError(fault)
    return footer


def _schema_fault(found: pa.Schema, columns: Sequence[Column]) -> str | None:
    """Return how the columns of a file differ from the expected ones; None if they do not."""
    expected = [column.name for column in columns]
    for name in (*expected, *found.names):
        if found.names.count(name) != expected.count(name):
            return f"has {found.names.count(name)} columns {visible(name, 40)}, not {expected.count(name)}"
    for column in columns:
        if not found.field(column.name).type.equals(column.type):
            return f"column {column.name} is {found.field(column.name).type}, not {column.type}"
    return None if found.names == expected else "has its columns in another order"


def values_fault(footer: pq.FileMetaData, table: str, documents: int, entries: int) -> str | None:
    """Return which values, by the statistics in the footer, are outside the range of a run; None if none are.

    Args:
        footer: from `read_footer`.
        table: name of the run's table that the file belongs to.
        documents: number of documents in the run.
        entries: number of vocabulary entries.
    """
    for group in (footer.row_group(index) for index in range(footer.num_row_groups)):
        chunks = [group.column(index) for index in range(group.num_columns)]
        stored = {chunk.path_in_schema: chunk.statistics for chunk in chunks if chunk.is_stats_set}
        unscored = stored.get("unscored")
        absent = group.num_rows - unscored.null_count if unscored is not None else 0
        for column in columns_of(table, footer.num_columns - len(LADDER_KEYS)):  # labels may have any value
            numbers = stored.get(column.name)
            expected = absent if table == "tokens" and column.name in SCORED else 0
            if numbers is None or column.name in FREE:
                continue
            if numbers.has_null_count and numbers.null_count != expected:
                return f"column {column.name} has no value in {numbers.null_count} rows, not in {expected}"
            low, high = _limits(column, documents, entries)
            if low is not None and numbers.has_min_max and not (low <= numbers.min and numbers.max <= high):
                return f"column {column.name} goes from {numbers.min} to {numbers.max}, not from {low} to {high}"
    return None


def _limits(column: Column, documents: int, entries: int) -> tuple[Any, Any]:
    """Return the smallest and largest allowed value of a column; None for the first if any value is allowed."""
    if column.name == "top_prob":
        return 0.0, ROUNDED_ONE
    if column.type not in INTEGERS:
        return None, None
    if column.name in ENTRIES:
        return 0, entries - 1
    if column.name == "document":
        return 0, documents - 1
    return -1 if column.name == "byte_offset" else 0, 2**63 - 1
