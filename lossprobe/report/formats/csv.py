"""Tables as CSV: UTF-8, LF line ends, full precision."""

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

# Columns whose cells are text that came from a file: JSON string literals in CSV, so that no reader or
# spreadsheet changes or runs them.
TEXT_COLUMNS = frozenset({
    "text", "top_text", "first_top_text", "second_top_text", "characters", "before", "after", "begins", "source",
    "group",
})  # fmt: skip
# Names of models: as they are shown elsewhere, and a literal only where a spreadsheet would take them for a formula.
NAME_COLUMNS = frozenset({"model", "first", "second", "smaller"})


def view_to_csv(view: View) -> Iterable[bytes]:
    """Return the CSV of a view, piece by piece."""
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
    """Yield the CSV of record batches piece by piece, header first, in the same form as `to_csv`."""
    for number, batch in enumerate(batches):
        sink = io.BytesIO()
        names = batch.schema.names
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        options = pyarrow.csv.WriteOptions(include_header=number == 0, quoting_style="needed", quoting_header="none")
        pyarrow.csv.write_csv(pa.Table.from_arrays(plain, names=names), sink, options)
        yield sink.getvalue()
