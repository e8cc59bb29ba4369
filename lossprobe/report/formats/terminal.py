"""Writes views as text for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from lossprobe.plain_table import Table
from lossprobe.report.formats.columns import Fitted, fitted
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

TERMINAL_ROWS = 40
UNLIMITED = 100_000  # cells; no table needs them


@dataclass(frozen=True)
class Rest:
    """How a reader gets what a page leaves out, as "--csv writes all of them"; "" where there is no way.

    Attributes:
        rows: said of rows after the 40th.
        columns: said of columns and tables that are left out.
    """

    rows: str = ""
    columns: str = ""


def view_to_terminal(view: View, width: int | None = None, rest: Rest | None = None, *, wide: bool = False) -> str:
    """Return a view as text: its title, its finding, its tables, and the lines below them.

    Args:
        view: the view.
        width: columns of the terminal; None asks the terminal.
        rest: how a reader gets what is left out; None for nothing about it.
        wide: all columns and all tables, however wide they are.
    """
    rest = rest or Rest()
    width = width or Console().width
    lines = view.lines_below
    tables = view.all_tables if wide else view.people_tables
    left_out = {} if wide else dict.fromkeys(view.columns_left_out)
    parts = [wrapped_lines([view.title, "", *view.finding_lines], width)]
    if not wide and not any(len(table) for _, table in tables):  # headings of nothing say nothing
        tables, left_out = (), {}
    for title, table in tables:
        text, gone = _table(table, UNLIMITED if wide else width, rest.rows, view.yields)
        left_out |= dict.fromkeys(gone)
        parts.append(wrapped_lines([title] if title else [], width) + text)
    if lines:
        parts.append(wrapped_lines(lines, width))
    if left_out or (view.brief is not None and not wide):
        parts.append(wrapped_lines([_about_the_rest(view, list(left_out), rest.columns)], width))
    return "\n".join(parts)


def _about_the_rest(view: View, columns: Sequence[str], how: str) -> str:
    """Return the line about columns and tables that are left out; the heading "X (3 of 10)" says it of its table."""
    shown = {title.partition(" (")[0] for title, _ in view.people_tables}
    tables = [title for title, _ in view.all_tables if title and title.partition(" (")[0] not in shown]
    named = [f"columns {', '.join(columns)}" if columns else "", f"tables: {', '.join(tables)}" if tables else ""]
    return visible(f"(not shown: {'; '.join(filter(None, named))}{how and f'; {how}'})") if any(named) else ""


def to_terminal(
    table: Table, title: str, lines: Iterable[str], width: int | None = None, rest: str = "",
    yields: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return at most 40 rows of a table as text for a terminal, with a title above and lines below.

    Args:
        table: the table.
        title: heading.
        lines: the finding and notes.
        width: columns of the terminal; None asks the terminal.
        rest: text about the rows after the 40th, such as "--csv writes all of them"; "" for none.
        yields: columns that go where the table is too wide, the first one first; see `columns.fitted`.
    """
    width = width or Console().width
    shown, gone = _table(table, width, rest, yields)
    below = [*lines, f"(not shown: columns {', '.join(gone)}; a wider terminal shows them)"] if gone else lines
    return f"{wrapped_lines([title], width)}\n{shown}\n{wrapped_lines(below, width)}"


def _table(table: Table, width: int, rest: str, yields: Sequence[str]) -> tuple[str, list[str]]:
    """Return the rows of a table as lines, and the names of the columns that had to go."""
    columns = fitted(table.head(TERMINAL_ROWS), width, yields)
    left = len(table) - TERMINAL_ROWS
    more = [f"({format_count(left)} more rows{rest and f'; {rest}'})"] if left > 0 else []
    return _printed([_grid(columns)], max(columns.width, 1)) + wrapped_lines(more, width), columns.left_out


def wrapped_lines(lines: Iterable[str], width: int) -> str:
    """Return lines for a terminal, wrapped between words under their own start, unprintable characters escaped."""
    return _printed([_indented(visible(line)) for line in lines], min(width, UNLIMITED))


def _indented(line: str) -> Padding:
    """Return a line whose further lines begin where it begins, after its leading blanks."""
    words = line.lstrip(" ")
    return Padding(Text(words), (0, 0, 0, len(line) - len(words)))


def _printed(pieces: list[Any], width: int) -> str:
    """Return rich pieces as plain text for a terminal of the given width."""
    sink = io.StringIO()
    console = Console(file=sink, width=width, color_system=None, highlight=False)
    for piece in pieces:
        console.print(piece)
    return "".join(f"{line.rstrip()}\n" for line in sink.getvalue().splitlines())


def _grid(columns: Fitted) -> RichTable:
    """Return columns laid out as a table."""
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, columns.gap - 1, 0, 0))
    for column, width in zip(columns.columns, columns.widths, strict=True):
        grid.add_column(
            Text("\n".join(column.header_lines)), justify="right" if column.numeric else "left", overflow="fold",
            width=width, vertical="top",
        )  # fmt: skip
    shown = [column.lines(width) for column, width in zip(columns.columns, columns.widths, strict=True)]
    for row in zip(*shown, strict=True):
        grid.add_row(*map(Text, row))
    return grid
