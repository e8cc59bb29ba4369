"""Tables and findings of a view in plain pieces for an HTML page; its template writes the markup and escapes them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lossprobe.analysis.findings.rule import SEVERITIES
from lossprobe.plain_table import Table, is_numeric
from lossprobe.report.formats.cells import NAME_COLUMNS, format_cell
from lossprobe.report.formats.columns import FROM_END, NUMBER, ONE_LINE
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from lossprobe.report.views.view import View

ROWS = 40
LOOK = "look"
LABELS = ("such as", "do", LOOK)  # that lines below a finding begin with


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


@dataclass(frozen=True)
class ToldDetail:
    """A line below a finding.

    Attributes:
        label: what it is, such as "do"; "" for nothing.
        text: the rest of the line.
        command: whether it is a command to type.
    """

    label: str
    text: str
    command: bool


@dataclass(frozen=True)
class Told:
    """A finding and what belongs to it.

    Attributes:
        text: the finding in a line.
        severity: "fault", "warning" or "note"; "" where it has none.
        details: the lines below it.
    """

    text: str
    severity: str
    details: tuple[ToldDetail, ...]


def told_of(view: View) -> tuple[tuple[Told, ...], ...]:
    """Return the findings of a view, those in a row together that have details, and those that have none."""
    told: list[tuple[str, list[ToldDetail]]] = []
    for line in filter(None, view.finding_lines):
        if line.startswith(" ") and told:
            told[-1][1].append(_detail(line.strip()))
        else:
            told.append((line, []))
    made = [Told(text, _severity(text), tuple(details)) for text, details in told]
    return tuple(tuple(each) for _, each in groupby(made, key=lambda each: bool(each.details)))


def _detail(line: str) -> ToldDetail:
    label, _, text = line.partition(": ")
    return ToldDetail(label, text, label == LOOK) if label in LABELS else ToldDetail("", line, False)


def _severity(line: str) -> str:
    first = line.partition(" ")[0]
    return first if first in SEVERITIES else ""


def tables_of(view: View) -> tuple[HtmlTable, ...]:
    """Return the tables of a view for people."""
    return tuple(_table(title, table) for title, table in (("", view.people_table), *view.more))


def _table(title: str, table: Table) -> HtmlTable:
    names = [str(name) for name in table.columns]
    shown = table.head(ROWS)
    cells = [[format_cell(name, value) for value in shown[name].tolist()] for name in names]
    columns = tuple(
        HtmlColumn(visible(name), _kind(name, table[name], made)) for name, made in zip(names, cells, strict=True)
    )
    left = len(table) - ROWS
    more = f"{format_count(left)} more rows are in the CSV." if left > 0 else ""
    return HtmlTable(visible(title), columns, tuple(zip(*cells, strict=True)), more)


def _kind(name: str, values: npt.NDArray[Any] | pd.Series, cells: list[str]) -> str:
    if name in FROM_END:
        return "before"
    if name in ONE_LINE:
        return "text"
    if is_numeric(values):
        return "number"
    formatted = name not in NAME_COLUMNS and any(cells) and all(map(NUMBER.fullmatch, cells))  # row by row
    return "number" if formatted else "words"
