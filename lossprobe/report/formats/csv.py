"""Writes tables as CSV: UTF-8, LF line ends, full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from lossprobe.plain_table import Table, is_numeric
from lossprobe.report.formats.cells import NAME_COLUMNS, is_absent
from lossprobe.units import token_literal, visible

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from lossprobe.report.views.view import View

# Columns with text of tokens and documents, which can hold any bytes. In CSV it is a JSON string literal, so that no
# spreadsheet runs it as a formula and no reader changes it.
TEXT_COLUMNS = frozenset({
    "text", "top_text", "first_top_text", "second_top_text", "characters", "before", "after", "begins",
    "excerpt", "meant", "example",
})  # fmt: skip
ROWS_AT_A_TIME = 10_000
COMPILED_FROM = 1_000_000  # rows that take longer to write than compiled loops to load
# How a name starts that a spreadsheet could run as a formula, or that could be taken for a literal: it becomes a JSON
# string literal. All other names are plain text.
NOT_PLAIN = ("=", "+", "-", "@", "＝", "＋", "－", "＠", '"')


def view_to_csv(view: View) -> Iterable[bytes]:
    """Return the CSV of a view as pieces of bytes."""
    return view.csv() if view.csv is not None else table_to_csv(view.rows)


def table_to_csv(table: Table) -> Iterator[bytes]:
    """Yield the CSV of a table some rows at a time, header first, in the form of `to_csv`."""
    for start in range(0, max(1, len(table)), ROWS_AT_A_TIME):
        yield to_csv(table[start : start + ROWS_AT_A_TIME], header=start == 0).encode()


def to_csv(table: Table, *, header: bool = True) -> str:
    """Return a table as CSV: UTF-8, LF line ends, full precision, empty cells for missing values."""
    entries = {"group"} if "token_id" in table else set()  # a group that is a vocabulary entry is its text
    texts = TEXT_COLUMNS | entries
    columns = []
    for name in table.columns:
        made = json.dumps if name in texts else plain_name if name in NAME_COLUMNS else None
        columns.append(_csv_cells(table[name], made))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    if header:
        writer.writerow(table.columns)
    writer.writerows(zip(*columns, strict=True))
    return sink.getvalue()


def _csv_cells(values: npt.NDArray[Any] | pd.Series, made: Callable[[str], str] | None) -> list[Any]:
    """Return the cells of a column, texts as `made` writes them; "" for what is absent."""
    plain = values.tolist()
    if made is not None and not is_numeric(values):
        return ["" if is_absent(value) else made(str(value)) for value in plain]
    shown = np.asarray(values).astype(str) if values.dtype.kind == "f" else plain  # of float32 too the fewest digits
    return ["" if is_absent(value) else cell for value, cell in zip(plain, shown, strict=True)]


def plain_name(name: str) -> str:
    """Return a name as a cell that no spreadsheet runs as a formula."""
    return json.dumps(name) if name.startswith(NOT_PLAIN) else visible(name)


def batches_to_csv(batches: Iterable[pa.RecordBatch], rows: int = 0) -> Iterator[bytes]:
    """Yield the CSV of Arrow record batches as pieces of bytes, header first, in the form of `to_csv`.

    Args:
        batches: the batches; a column of bytes holds texts, and becomes one of JSON string literals.
        rows: how many rows they have together, if it is known: many are written by compiled loops.
    """
    source = iter(batches)
    first = next(source, None)
    if first is None:
        return
    yield (",".join(first.schema.names) + "\n").encode()
    if rows >= COMPILED_FROM:
        from lossprobe.report.formats.csv_rows import are_written, written

        if are_written(first.schema):
            yield from written(chain([first], source))
            return
    yield from map(_arrow_csv, chain([first], source))


def _arrow_csv(batch: pa.RecordBatch) -> bytes:
    """Return the CSV of a batch, without a header."""
    import pyarrow as pa
    import pyarrow.csv

    sink = io.BytesIO()
    plain = [_literals(column) if pa.types.is_large_binary(column.type) else column for column in batch.columns]
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in plain]
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
    pyarrow.csv.write_csv(pa.Table.from_arrays(plain, names=batch.schema.names), sink, options)
    return sink.getvalue()


def _literals(column: pa.Array) -> pa.Array:
    """Return bytes of texts as JSON string literals; each text, of which there are few, is looked at once."""
    import pyarrow as pa

    coded = column.dictionary_encode()
    literals = [token_literal(text) for text in coded.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(coded.indices, pa.array(literals, pa.string()))
