"""Writes tables as CSV: UTF-8, LF line ends, full precision."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

# Columns with text from files. In CSV it is a JSON string literal, so that no spreadsheet runs it as a formula and no
# reader changes it.
TEXT_COLUMNS = frozenset({
    "text", "top_text", "first_top_text", "second_top_text", "characters", "before", "after", "begins", "source",
    "group",
})  # fmt: skip
# Columns with names of models. They become JSON string literals only where a spreadsheet could run them as formulas.
NAME_COLUMNS = frozenset({"model", "first", "second", "smaller", "record_id", "record_source"})


def view_to_csv(view: View) -> Iterable[bytes]:
    """Return the CSV of a view as pieces of bytes."""
    return view.csv() if view.csv is not None else [to_csv(view.result.table).encode()]


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV: UTF-8, LF line ends, full precision, empty cells for missing values."""
    shown = table.copy()
    for column in TEXT_COLUMNS & set(table.columns):
        if not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = [None if pd.isna(value) else json.dumps(str(value)) for value in shown[column]]
    for column in NAME_COLUMNS & set(table.columns):
        shown[column] = [_name(str(value)) for value in shown[column]]
    return str(shown.to_csv(index=False, lineterminator="\n"))


def _name(name: str) -> str:
    return json.dumps(name) if name.startswith(("=", "+", "-", "@")) else visible(name)


def batches_to_csv(batches: Iterable[pa.RecordBatch]) -> Iterable[bytes]:
    """Yield the CSV of Arrow record batches as pieces of bytes, header first, in the form of `to_csv`."""
    for number, batch in enumerate(batches):
        sink = io.BytesIO()
        names = batch.schema.names
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        options = pyarrow.csv.WriteOptions(include_header=number == 0, quoting_style="needed", quoting_header="none")
        pyarrow.csv.write_csv(pa.Table.from_arrays(plain, names=names), sink, options)
        yield sink.getvalue()
