"""Tables of a view as plain cells for an HTML page; the page's template writes the markup and escapes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from lossprobe.report.formats.cells import format_cell
from lossprobe.report.formats.columns import FROM_END, ONE_LINE
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

ROWS = 40


@dataclass(frozen=True)
class HtmlColumn:
    """The head of a column.

    Attributes:
        name: as every other format prints it.
        kind: "number", "text" (characters from the file, in letters of one width) or "before" (the same, ending at the
            right edge), or "words".
    """

    name: str
    kind: str


@dataclass(frozen=True)
class HtmlTable:
    """A table as cells.

    Attributes:
        title: its heading; "" for none.
        columns: the heads.
        rows: the cells of at most 40 rows, as a terminal shows them; unprintable characters are escaped.
        left: what is said of the rows after those; "" where there are none.
    """

    title: str
    columns: tuple[HtmlColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    left: str


def tables_of(view: View) -> tuple[HtmlTable, ...]:
    """Return the tables of a view for people."""
    return tuple(_table(title, table) for title, table in (("", view.people_table), *view.more))


def _table(title: str, table: pd.DataFrame) -> HtmlTable:
    names = [str(name) for name in table.columns]
    shown = table.head(ROWS)
    cells = [[format_cell(name, value) for value in shown[column]] for name, column in zip(names, table, strict=True)]
    columns = tuple(HtmlColumn(visible(name), _kind(name, table[column]))
                    for name, column in zip(names, table, strict=True))  # fmt: skip
    left = len(table) - ROWS
    more = f"{format_count(left)} more rows are in the CSV." if left > 0 else ""
    return HtmlTable(visible(title), columns, tuple(zip(*cells, strict=True)), more)


def _kind(name: str, values: pd.Series) -> str:
    if name in FROM_END:
        return "before"
    if name in ONE_LINE:
        return "text"
    return "number" if pd.api.types.is_numeric_dtype(values) else "words"
