"""A result's table as CSV, JSON or terminal text. Formats numbers; computes none."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossprobe.run.reader import Run
from lossprobe.units import format_count

JSON_SCHEMA = 1
# Columns whose cells are text that came from a file: JSON string literals in CSV, so that no reader or
# spreadsheet changes or runs them.
TEXT_COLUMNS = frozenset({"text", "top_text", "characters", "before", "after", "begins", "source", "group"})
SHARES = frozenset({"share_of_loss", "share_of_tokens", "top_prob"})
TERMINAL_ROWS = 40


def to_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV: UTF-8, LF line ends, full precision, empty cells for missing values."""
    shown = table.copy()
    for column in TEXT_COLUMNS & set(table.columns):
        if not pd.api.types.is_numeric_dtype(shown[column]):
            shown[column] = [None if value is None else json.dumps(str(value)) for value in shown[column]]
    return str(shown.to_csv(index=False, lineterminator="\n"))


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


def to_json(command: str, run: Run, result: Any) -> str:
    """Return a result as one JSON object: schema version, run, every documented field, `rows` of its table.

    Missing numbers are null, never NaN. Floats are written in full precision.
    """
    content: dict[str, Any] = {
        "schema": JSON_SCHEMA,
        "command": command,
        "run": {"path": str(run.path), **run.manifest["labels"], "settings": run.manifest["settings"]},
    }
    for field in dataclasses.fields(result):
        content["rows" if field.name == "table" else field.name] = _plain(getattr(result, field.name))
    content["finding"] = result.finding
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=True) + "\n"


def _plain(value: Any) -> Any:
    """Return a value in plain JSON types."""
    if isinstance(value, pd.DataFrame):
        return [{str(key): _plain(cell) for key, cell in row.items()} for row in value.to_dict("records")]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_terminal(table: pd.DataFrame, title: str, lines: Iterable[str], width: int | None = None) -> str:
    """Return a table as text for a terminal, at most 40 rows of it, with lines below it.

    Args:
        table: the table; every text cell is already safe to print.
        title: heading.
        lines: the finding and notes.
        width: columns of the terminal; None asks the terminal.
    """
    grid = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", title_style="bold", pad_edge=False)
    rows = [
        [format_cell(str(n), value) for n, value in row.items()] for row in table.head(TERMINAL_ROWS).to_dict("records")
    ]
    for name, *cells in zip(table.columns, *rows, strict=True):
        text = name in TEXT_COLUMNS and not pd.api.types.is_numeric_dtype(table[name])
        widest = max(len(cell) for cell in (str(name), *cells))
        grid.add_column(
            Text(str(name)),
            justify="left" if text else "right",
            overflow="fold",
            min_width=None if text else widest,
            no_wrap=not text,
        )
    for cells in rows:
        grid.add_row(*map(Text, cells))
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(grid)
    if len(table) > TERMINAL_ROWS:
        console.print(Text(f"({format_count(len(table) - TERMINAL_ROWS)} more rows; --csv writes all of them)"))
    for line in lines:
        console.print(Text(line))
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def format_cell(column: str, value: Any) -> str:
    """Return one cell for people: 6 decimals for nats, thousands separators for counts, `n/a` for nothing.

    >>> format_cell("loss_nats", 1.5), format_cell("count", 12345), format_cell("low", float("nan"))
    ('1.500000', '12,345', 'n/a')
    """
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return format_count(int(value))
    if isinstance(value, (float, np.floating)):
        if column in SHARES:
            return f"{float(value):.2%}"
        return f"{float(value):,.4f}" if column == "perplexity" or abs(float(value)) >= 1000 else f"{float(value):.6f}"
    return str(value)
