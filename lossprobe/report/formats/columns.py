"""Fits the columns of a table into a number of cells: which are shown, how wide they are, and what their cells say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from lossprobe.plain_table import Table, is_numeric
from lossprobe.report.formats.cells import NAME_COLUMNS, format_cell
from lossprobe.report.names import ELLIPSIS, short_names

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

# Text from files stands on one line and is cut at its end, or at its start if in `FROM_END`. Column → its least width.
ONE_LINE = {
    "text": 8, "top_text": 8, "first_top_text": 8, "second_top_text": 8, "characters": 8, "before": 18, "after": 14,
    "begins": 24, "prompt_end": 14, "chosen_begins": 14, "rejected_begins": 14,
}  # fmt: skip
FROM_END = ("before", "prompt_end")
TEXT_WIDTH = 14  # a text wraps no earlier
NAME_WIDTHS = (40, 30, 20, 12, 8)  # a longer word loses its middle; the next limit holds where a table is too wide
USERS = 24  # the limit of names that users choose, before columns go
NUMBER = re.compile(r"(?:< )?[-+]?[\d,.]+(e[-+]?\d+)?%?|n/a|-?inf|")
BLANK = re.compile(r" +(?![-+]?[\d.]+\])")  # not the one inside an interval such as [0.1, 0.2]


@dataclass(frozen=True)
class ColumnLayout:
    """A column as text.

    Attributes:
        header: its name.
        cells: its cells, in one line each.
        broken: break the header at `_`.
        limit: cells of the longest word.
    """

    header: str
    cells: list[str] = field(repr=False)
    numeric: bool
    broken: bool = False
    limit: int = NAME_WIDTHS[0]

    @property
    def header_lines(self) -> list[str]:
        """The header, which breaks only at `_`."""
        words = re.findall(r"[^_]*_|[^_]+", self.header) if self.broken else [self.header]
        return [_short(word, self.limit) for word in words]

    @cached_property
    def natural(self) -> int:
        """The width at which no cell is cut or wrapped."""
        return max(map(cell_len, (*self.header_lines, *self.cells)))

    @cached_property
    def least(self) -> int:
        """The width below which a number, or a word no longer than the limit, would be cut."""
        if self.numeric:
            return self.natural
        header = max(map(cell_len, self.header_lines))
        if self.header in ONE_LINE:
            return max(header, min(self.natural, ONE_LINE[self.header]))
        longest = max((cell_len(word) for cell in self.cells for word in BLANK.split(cell)), default=0)
        limit = min(self.limit, USERS) if self.header in NAME_COLUMNS else self.limit
        return max(header, min(longest, limit), min(self.natural, TEXT_WIDTH))

    def lines(self, width: int) -> list[str]:
        """Return the cells at a width, wrapped between words or, for text from files, cut to one line."""
        if self.numeric:
            return self.cells
        if self.header in ONE_LINE:
            return [_start(cell, width, from_end=self.header in FROM_END) for cell in self.cells]
        long = [
            word for word in dict.fromkeys(word for cell in self.cells for word in BLANK.split(cell))
            if cell_len(word) > width
        ]  # fmt: skip
        short = dict(zip(long, short_names(long, max(width, NAME_WIDTHS[-1])), strict=True))
        return [_wrapped([short.get(word, word) for word in BLANK.split(cell)], width) for cell in self.cells]


@dataclass(frozen=True)
class Fitted:
    """Columns that fit: the columns, their widths, the blanks between them, and the names of those left out."""

    columns: list[ColumnLayout]
    widths: list[int]
    gap: int
    left_out: list[str]

    @property
    def width(self) -> int:
        """Cells of a row."""
        return sum(self.widths) + self.gap * (len(self.widths) - 1)


def fitted(table: Table, width: int, yields: Sequence[str]) -> Fitted:
    """Return a table's columns, fitted into a width.

    Texts wrap first, then headers break at `_`, then the columns `yields` go, in their order, then long names lose
    their middle. Numbers are never cut, so that what is left may still be too wide.

    Args:
        table: at most as many rows as are shown.
        width: cells of a line.
        yields: columns that may go, the first one first.
    """
    columns = [_column(str(name), table[name]) for name in table.columns]
    left_out: list[str] = []
    going = [name for name in yields if name in table.columns]
    while True:
        for gap, broken in ((2, False), (2, True), (1, True)):
            tried = [replace(column, broken=broken) for column in columns]
            if _least_width(tried, gap) <= width:
                return Fitted(tried, _widths(tried, width, gap), gap, left_out)
        if not going or len(columns) == 1:
            break
        left_out.append(going.pop(0))
        columns = [column for column in columns if column.header != left_out[-1]]
    for limit in NAME_WIDTHS:
        tried = [replace(column, broken=True, limit=limit) for column in columns]
        if _least_width(tried, 1) <= width:
            break
    return Fitted(tried, _widths(tried, width, 1), 1, left_out)


def _column(name: str, values: npt.NDArray[Any] | pd.Series) -> ColumnLayout:
    cells = [format_cell(name, value) for value in values.tolist()]
    numeric = is_numeric(values) or (name not in ONE_LINE and any(cells) and all(map(NUMBER.fullmatch, cells)))
    return ColumnLayout(name, cells, numeric)


def _least_width(columns: Sequence[ColumnLayout], gap: int) -> int:
    return sum(column.least for column in columns) + gap * (len(columns) - 1)


def _widths(columns: Sequence[ColumnLayout], width: int, gap: int) -> list[int]:
    """Return the widths of columns: each what it needs at least, and the narrowest texts grow in what is left."""
    widths = [column.least for column in columns]
    for _ in range(width - _least_width(columns, gap)):
        growing = [index for index, column in enumerate(columns) if widths[index] < column.natural]
        if not growing:
            break
        widths[min(growing, key=lambda index: widths[index])] += 1
    return widths


def _wrapped(words: Sequence[str], width: int) -> str:
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _start(text: str, width: int, *, from_end: bool) -> str:
    """Return the start (or the end) of a text in at most `width` cells, with … for the rest; between words if it can.

    >>> _start("one two three", 9, from_end=False), _start("one two three", 9, from_end=True)
    ('one two…', '…three')
    """
    if cell_len(text) <= width:
        return text
    letters = text[::-1] if from_end else text
    kept = _leading(letters, width - 1)
    if letters[len(kept)] != " " and " " in kept.strip():
        kept = kept[: kept.rindex(" ")]
    kept = kept.rstrip(" ")
    return ELLIPSIS + kept[::-1] if from_end else kept + ELLIPSIS


def _leading(text: str, width: int) -> str:
    while cell_len(text) > width:
        text = text[:-1]
    return text


def _short(word: str, width: int) -> str:
    return word if cell_len(word) <= width else short_names([word], width)[0]
