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
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossprobe.run.reader import Run
from lossprobe.units import format_count, format_perplexity, visible

JSON_SCHEMA = 1
# Columns whose cells are text that came from a file: JSON string literals in CSV, so that no reader or
# spreadsheet changes or runs them.
TEXT_COLUMNS = frozenset({
    "text", "top_text", "first_top_text", "second_top_text", "characters", "before", "after", "begins", "source",
    "group",
})  # fmt: skip
# Names of models: as they are shown elsewhere, and a literal only where a spreadsheet would take them for a formula.
NAME_COLUMNS = frozenset({"model", "first", "second", "smaller"})
SHARES = frozenset({"share_of_loss", "share_of_tokens", "top_prob"})
COUNTED = frozenset({"tokens", "count", "bytes", "documents", "spans"})  # units of whole numbers
TERMINAL_ROWS = 40
TEXT_WIDTH = 10  # columns a text keeps when its table is too wide


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
        short = [name for name in value.columns if value[name].dtype == "float32"]
        rows = value.assign(**{name: _shortest(value[name]) for name in short})
        return [{str(key): _plain(cell) for key, cell in row.items()} for row in rows.to_dict("records")]
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


def _shortest(column: pd.Series) -> list[float]:
    """Return float32 values as floats with the digits that a CSV has: 0.1, not 0.10000000149011612."""
    return [float(str(value)) for value in column.to_numpy()]


def to_terminal(table: pd.DataFrame, title: str, lines: Iterable[str], width: int | None = None) -> str:
    """Return a table as text for a terminal, at most 40 rows of it, with lines below it.

    Numbers are never cut or folded: where a table is too wide, headers break at `_` and texts fold; where that is not
    enough, it is wider than the terminal.

    Args:
        table: the table.
        title: heading.
        lines: the finding and notes.
        width: columns of the terminal; None asks the terminal.
    """
    width = width or Console().width
    grid, needed = _grid(table, width)
    left = len(table) - TERMINAL_ROWS
    more = [Text(f"({format_count(left)} more rows; --csv writes all of them)")] if left > 0 else []
    text = (
        _printed([Text(visible(title)), ""], width)
        + _printed([grid], max(needed, width))
        + _printed([*more, "", *(Text(visible(line)) for line in lines)], width)
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _printed(pieces: list[Any], width: int) -> str:
    """Return what a terminal of some width shows, without colours."""
    sink = io.StringIO()
    console = Console(file=sink, width=width, color_system=None, highlight=False)
    for piece in pieces:
        console.print(piece)
    return sink.getvalue()


def _grid(table: pd.DataFrame, width: int) -> tuple[Table, int]:
    """Return the table laid out for a width, and the width it takes."""
    rows = table.head(TERMINAL_ROWS).to_dict("records")
    cells = {name: [format_cell(str(name), row[name]) for row in rows] for name in table.columns}
    texts = [not pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    headers = [str(name) for name in table.columns]
    gap = 2
    widths = _widths(headers, list(cells.values()), texts, width - gap * (len(headers) - 1))
    if sum(widths) + gap * (len(headers) - 1) > width:
        headers, gap = [name.replace("_", "_\n") for name in headers], 1
        widths = _widths(headers, list(cells.values()), texts, width - (len(headers) - 1))
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap - 1, 0, 0))
    for header, column_width, text in zip(headers, widths, texts, strict=True):
        grid.add_column(
            Text(header), justify="left" if text else "right", overflow="fold", width=column_width, vertical="top"
        )
    for row in zip(*cells.values(), strict=True):
        grid.add_row(*map(Text, row))
    return grid, sum(widths) + gap * (len(headers) - 1)


def _widths(headers: list[str], cells: list[list[str]], texts: list[bool], room: int) -> list[int]:
    """Return column widths: what numbers need, and for texts what is left, the narrowest first."""
    natural = [
        max(cell_len(part) for part in (*header.split("\n"), *column))
        for header, column in zip(headers, cells, strict=True)
    ]
    widths = [min(full, TEXT_WIDTH) if text else full for full, text in zip(natural, texts, strict=True)]
    for _ in range(room - sum(widths)):
        growing = [index for index, full in enumerate(natural) if widths[index] < full]
        if not growing:
            break
        widths[min(growing, key=lambda index: widths[index])] += 1
    return widths


def by_unit(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of measures (value, low, high, unit) with its numbers as text, counts without decimals.

    >>> by_unit(pd.DataFrame({"measure": ["n"], "value": [1200.0], "unit": ["tokens"]})).value.tolist()
    ['1,200']
    """
    shown = table.copy()
    for name in [name for name in ("value", "low", "high") if name in table]:
        shown[name] = [
            format_cell(name, int(value) if unit in COUNTED and math.isfinite(value) else value)
            for value, unit in zip(table[name], table["unit"], strict=True)
        ]
    return shown


def small_numbers(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return a table with some columns as text that shows also how small a tiny number is.

    >>> small_numbers(pd.DataFrame({"x": [0.0, -1.26e-7, 0.5, math.nan]}), ["x"]).x.tolist()
    ['0', '-1.3e-07', '0.500000', 'n/a']
    """
    return table.assign(**{name: [_small(value) for value in table[name]] for name in columns})


def _small(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if abs(value) < 1e-3 else format_cell("", float(value))


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
        if column == "perplexity" or abs(float(value)) >= 1000:
            return format_perplexity(float(value))
        return f"{float(value):.6f}"
    return visible(str(value))
