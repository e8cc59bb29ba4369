"""Writes an audit as text for a terminal and the log of a CI job."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lossprobe.audit.checks.verdicts import AuditResult
from lossprobe.report.audit.rows import Row, headers, name, reasons, row
from lossprobe.report.formats.terminal import wrapped_lines
from lossprobe.units import visible

# Columns of text that fold where the table is too wide → their least width.
FOLDING = {"check": 16, "verdict": 12}
RIGHT = {"measured", "tokens"}
METRIC = Row._fields.index("metric")
GAP = 2
# CI runners obey commands in a log: lines that begin with `::` (after blanks too), and `##[` and `##vso[` anywhere.
COMMAND = re.compile(r"^(\s*):(?=:)|#(?=#(?:vso)?\[)")


def audit_to_terminal(result: AuditResult, width: int | None = None) -> str:
    """Return the table of checks, the reason of each check that did not pass, the notes, and the verdict as last line.

    There are no colours. If the table is too wide, the metric moves to a line below each check, and then text columns
    fold. Numbers are never cut, so the table may still be wider than the terminal. The reasons and notes are wrapped on
    a terminal; in the log of a job each is one line, as what searches the log expects.

    Args:
        result: the audit.
        width: columns of the terminal; None asks the terminal, if standard output is one.
    """
    on_terminal = width is not None or sys.stdout.isatty()
    width = width or Console().width
    lines = [f"audit: {name(result.model)} by {name(result.file)}", ""]
    if result.checks:
        lines += [*_table([headers(result), *map(row, result.checks)], width), ""]
    below = [f"{verdict}: {check}: {reason}" for verdict, check, reason in reasons(result)]
    below += [f"note: {visible(note)}" for note in result.notes]
    below += [""] if below else []
    lines += wrapped_lines(below, width).splitlines() if on_terminal else below
    lines.append(visible(result.finding))  # one line everywhere: the last one is the verdict
    return "".join(f"{COMMAND.sub(_inert, line)}\n" for line in lines)


def _inert(found: re.Match[str]) -> str:
    """Return the first character of a command as an escape, so that the runner does not obey it."""
    return r"\x23" if found[0] == "#" else rf"{found[1]}\x3a"


def _table(rows: list[Row], width: int) -> list[str]:
    """Return the lines of the table, headers first."""
    fields: tuple[str, ...] = Row._fields
    grid: list[tuple[str, ...]] = list(rows)
    below = [""] * len(rows)
    if _needed(grid) > width:
        below = ["", *(f"  {cells.metric}" for cells in rows[1:])]
        fields, *grid = [cells[:METRIC] + cells[METRIC + 1 :] for cells in (fields, *grid)]
    widths = _widths(fields, grid, width)
    lines = [*_lines(fields, grid[0], widths), "─" * (sum(widths) + GAP * (len(widths) - 1))]
    for cells, metric in zip(grid[1:], below[1:], strict=True):
        lines += [*_lines(fields, cells, widths), metric] if metric else _lines(fields, cells, widths)
    return lines


def _needed(grid: Sequence[Sequence[str]]) -> int:
    """Return the width of the table without folding."""
    columns = list(zip(*grid, strict=True))
    return sum(max(map(cell_len, column)) for column in columns) + GAP * (len(columns) - 1)


def _widths(fields: Sequence[str], grid: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the widths of columns; text columns shrink, the widest first, until the table fits."""
    natural = [max(map(cell_len, column)) for column in zip(*grid, strict=True)]
    widths = list(natural)
    floors = [min(FOLDING.get(field, full), full) for field, full in zip(fields, natural, strict=True)]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        shrinking = [index for index, floor in enumerate(floors) if widths[index] > floor]
        if not shrinking:
            break
        widths[max(shrinking, key=lambda index: widths[index])] -= 1
    return widths


def _lines(fields: Sequence[str], cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of one row; more than one where a cell folds."""
    console = Console(file=io.StringIO(), color_system=None)
    folded = [
        [line.plain.rstrip() for line in Text(cell).wrap(console, width, overflow="fold")]
        for cell, width in zip(cells, widths, strict=True)
    ]
    lines = []
    for parts in zip_longest(*folded, fillvalue=""):
        padded = [
            " " * (width - cell_len(part)) + part if field in RIGHT else part + " " * (width - cell_len(part))
            for field, part, width in zip(fields, parts, widths, strict=True)
        ]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines
