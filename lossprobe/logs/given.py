"""Reads a log whose numbers the user names: a name before a number in any text, or the number of a column."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lossprobe.logs.console import WITH_THOUSANDS, float_of
from lossprobe.logs.lines import LogFile
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table, number

LARGEST_COLUMN = 10_000


def reader_of_given(given: Iterable[str]) -> Callable[[LogFile], Records]:
    """Return a reader for names such as "Loss:" before a number, or "3" for the third column of a table, from 1."""
    found = tuple(given)
    columns = [int(name) for name in found if name.isdecimal() and 0 < int(name) <= LARGEST_COLUMN]
    patterns = {
        name: re.compile(re.escape(name.encode()) + rb"\s{0,20}[:=]?\s{0,20}" + WITH_THOUSANDS) for name in found
    }

    def read(file: LogFile) -> Records:
        table = Table()
        objects = Objects(table)
        for block in file.blocks():
            lines = (line for line in block.split(b"\n") if line)
            if len(columns) == len(found):
                rows = [_cells(line, columns) for line in lines]
            else:
                rows = [_named(line, patterns) for line in lines]
            objects.add_block([row for row in rows if row])
        return table.records("columns")

    return read


def _cells(line: bytes, columns: list[int]) -> Object:
    """Return the numbers of some columns of a line; nothing where one of them is no number, as in a line of names."""
    cells = re.split(rb"[,;|\s]+", line.strip())
    if max(columns) > len(cells):
        return {}
    values = {str(column): number(cells[column - 1].decode("utf-8", "replace")) for column in columns}
    return {} if None in values.values() else values


def _named(line: bytes, patterns: dict[str, re.Pattern[bytes]]) -> Object:
    found = ((name, pattern.search(line)) for name, pattern in patterns.items())
    return {name: float_of(match[1]) for name, match in found if match is not None}
