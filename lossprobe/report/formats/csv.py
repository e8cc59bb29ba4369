"""Writes tables as CSV: UTF-8, LF line ends, full precision."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pandas as pd

from lossprobe.report.formats.cells import NAME_COLUMNS
from lossprobe.units import visible

if TYPE_CHECKING:
    import pyarrow as pa

    from lossprobe.report.views.view import View

# Columns with text of tokens and documents, which can hold any bytes. In CSV it is a JSON string literal, so that no
# spreadsheet runs it as a formula and no reader changes it.
TEXT_COLUMNS = frozenset({
    "text", "top_text", "first_top_text", "second_top_text", "characters", "before", "after", "begins",
    "excerpt", "meant", "example",
})  # fmt: skip
ROWS_AT_A_TIME = 10_000
# How a name starts that a spreadsheet could run as a formula, or that could be taken for a literal: it becomes a JSON
# string literal. All other names are plain text.
NOT_PLAIN = ("=", "+", "-", "@", "＝", "＋", "－", "＠", '"')


def view_to_csv(view: View) -> Iterable[bytes]:
    """Return the CSV of a view as pieces of bytes."""
    return view.csv() if view.csv is not None else table_to_csv(view.result.table)


def table_to_csv(table: pd.DataFrame) -> Iterator[bytes]:
    """Yield the CSV of a table some rows at a time, header first, in the form of `to_csv`."""
    for start in range(0, max(1, len(table)), ROWS_AT_A_TIME):
        yield to_csv(table.iloc[start : start + ROWS_AT_A_TIME], header=start == 0).encode()


def to_csv(table: pd.DataFrame, *, header: bool = True) -> str:
    """Return a table as CSV: UTF-8, LF line ends, full precision, empty cells for missing values."""
    shown = table.copy()
    entries = {"group"} if "token_id" in table else set()  # a group that is a vocabulary entry is its text
    texts = TEXT_COLUMNS | entries
    for column in table.columns:
        made = json.dumps if column in texts else plain_name if column in NAME_COLUMNS else None
        if made is not None and not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = [None if pd.isna(value) else made(str(value)) for value in shown[column]]
    return str(shown.to_csv(index=False, header=header, lineterminator="\n"))


def plain_name(name: str) -> str:
    """Return a name as a cell that no spreadsheet runs as a formula."""
    return json.dumps(name) if name.startswith(NOT_PLAIN) else visible(name)


def batches_to_csv(batches: Iterable[pa.RecordBatch]) -> Iterable[bytes]:
    """Yield the CSV of Arrow record batches as pieces of bytes, header first, in the form of `to_csv`."""
    import pyarrow as pa
    import pyarrow.csv

    for number, batch in enumerate(batches):
        sink = io.BytesIO()
        names = batch.schema.names
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        options = pyarrow.csv.WriteOptions(include_header=number == 0, quoting_style="needed", quoting_header="none")
        pyarrow.csv.write_csv(pa.Table.from_arrays(plain, names=names), sink, options)
        yield sink.getvalue()
