"""Writes views as text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lossprobe.report.formats.cells import format_cell
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

TERMINAL_ROWS = 40
TEXT_WIDTH = 10  # least width of a column of text in a table that is too wide


def view_to_terminal(view: View, width: int | None = None, rest: str = "") -> str:
    """Return a view as text: its table, the lines below it, and its other tables; arguments as in `to_terminal`."""
    pages = [(view.people_table, view.title, view.people_lines), *((frame, title, []) for title, frame in view.more)]
    return "\n".join(to_terminal(*page, width, rest).rstrip("\n") + "\n" for page in pages)


def to_terminal(table: pd.DataFrame, title: str, lines: Iterable[str], width: int | None = None, rest: str = "") -> str:
    """Return at most 40 rows of a table as text for a terminal, with a title above and lines below.

    In a table that is too wide, headers break at `_` and text cells fold. Numbers are never cut or folded, so the table
    may still be wider than the terminal.

    Args:
        table: the table.
        title: heading.
        lines: the finding and notes.
        width: columns of the terminal; None asks the terminal.
        rest: text about the rows after the 40th, such as "--csv writes all of them"; "" for none.
    """
    width = width or Console().width
    grid, needed = _grid(table, width)
    left = len(table) - TERMINAL_ROWS
    more = [Text(f"({format_count(left)} more rows{rest and f'; {rest}'})")] if left > 0 else []
    text = (
        _printed([Text(visible(title)), ""], width)
        + _printed([grid], max(needed, width))
        + _printed([*more, "", *(Text(visible(line)) for line in lines)], width)
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _printed(pieces: list[Any], width: int) -> str:
    """Return rich pieces as plain text for a terminal of the given width."""
    sink = io.StringIO()
    console = Console(file=sink, width=width, color_system=None, highlight=False)
    for piece in pieces:
        console.print(piece)
    return sink.getvalue()


def _grid(table: pd.DataFrame, width: int) -> tuple[Table, int]:
    """Return the table laid out for a terminal of the given width, and the width that it needs."""
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
    """Return the widths of columns: columns of numbers get what they need, the narrowest texts grow in what is left."""
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
