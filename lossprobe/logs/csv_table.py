"""Reads tables: Lightning's metrics.csv, exports of wandb, and any others with a line of names, or without."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from lossprobe.logs import commas, names
from lossprobe.logs.lines import LogFile
from lossprobe.logs.log import LOSS
from lossprobe.logs.names import RUN_PREFIX, meaning
from lossprobe.logs.records import Records, Table, number
from lossprobe.units import plural, visible

DELIMITERS = (",", "\t", ";")
START = 1 << 16  # bytes that hold the line of names and a row
LONGEST_CELL = 1 << 20
WANDB_RANGE = ("__MIN", "__MAX")  # of the points that one point of a picture stands for


def delimiter_of(start: bytes, given: Collection[str] = ()) -> str | None:
    """Return what parts the cells of a table, or None where there is none of a log.

    Args:
        start: its first bytes.
        given: names that the user says it has.
    """
    lines = [line for line in start[:START].split(b"\n") if line.strip()][:2]
    for delimiter in DELIMITERS if len(lines) == 2 else ():
        header, first = (next(_rows([line], delimiter), []) for line in lines)
        known = any(_is_known(cell) or cell.strip() in given for cell in header)
        if len(header) == len(first) > 1 and known and not any(map(_is_number, header)):
            return delimiter
    return None


def read_csv(file: LogFile) -> Records:
    """Return the numbers of a table with a line of names; an empty cell is no number."""
    delimiter = _delimiter(file.beginning())
    table = Table()
    header: list[str] = []
    decimal: dict[str, bool | None] = {}  # by column, whether its commas are decimal; the first block with one decides
    ragged = 0
    for block in file.blocks():
        rows = [row for row in _rows(block.splitlines(keepends=True), delimiter) if row]
        if not header:
            header, rows = [cell.strip() for cell in rows[0]], rows[1:]
        whole = [row for row in rows if len(row) == len(header)]
        ragged += len(rows) - len(whole)
        for key, cells in zip(header, zip(*whole, strict=True), strict=False):
            if key and not key.endswith(WANDB_RANGE):  # without a name: pandas' count of rows
                if decimal.get(key) is None:
                    decimal[key] = _decimal_commas(key, cells, delimiter)
                _add(table, key, cells, decimal[key])
        table.end_block(len(whole))
    notes = [f"{plural(ragged, 'row')} without {plural(len(header), 'cell')} left out"] if ragged else []
    return _one_run(table.records(_kind(header), notes=notes))


def _delimiter(start: bytes) -> str:
    """Return the delimiter that the line of names has most of."""
    line = start.lstrip().split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(DELIMITERS, key=line.count)


def _decimal_commas(key: str, cells: Sequence[str], delimiter: str) -> bool | None:
    """Return whether commas in the cells of a column are decimal commas; None where they tell nothing."""
    if delimiter == ";":  # which is there because commas are taken
        return True
    if not any("," in cell for cell in cells):
        return None
    plain = names.without_run(key).strip().lower()
    return commas.of_cells(cells, counts=plain in names.STEPS or plain in names.TOKENS)


def _add(table: Table, key: str, cells: Sequence[str], decimal: bool | None) -> None:
    """Add the cells of a column; `decimal` is what `_decimal_commas` says."""
    filled = np.array([index for index, cell in enumerate(cells) if cell and not cell.isspace()], np.int64)
    kept = cells if len(filled) == len(cells) else [cells[index] for index in filled]
    if decimal:  # a cell with both, as 1.234,5, stays as it is: no number
        kept = [cell.replace(",", ".") if "." not in cell else cell for cell in kept]
    elif decimal is not None:
        kept = [cell.replace(",", "") for cell in kept]
    table.add_cells(key, filled, kept)


def _rows(lines: Sequence[bytes], delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of lines; a line that is no table, as of a quote that never ends, gives what is left."""
    csv.field_size_limit(LONGEST_CELL)
    try:
        yield from csv.reader((line.decode("utf-8", "replace") for line in lines), delimiter=delimiter)
    except csv.Error:
        return


def _is_known(cell: str) -> bool:
    """Return whether a name of a table is one that logs have."""
    plain = names.without_run(cell).strip().lower()
    return plain in names.STEPS or plain in names.EPOCHS or meaning(cell).name == LOSS


def _is_number(cell: str) -> bool:
    return number(cell) is not None


def _kind(header: Sequence[str]) -> str:
    if any(key.endswith(WANDB_RANGE) for key in header):
        return "wandb"
    return "lightning" if {"epoch", "step"} <= set(header) else "csv"


def _one_run(records: Records) -> Records:
    """Return the records of the first run, where an exported table holds several side by side."""
    runs = list(dict.fromkeys(found[0] for key in records.columns if (found := RUN_PREFIX.match(key))))
    if len(runs) < 2:
        return records
    columns = {key: each for key, each in records.columns.items() if not key.startswith(tuple(runs[1:]))}
    others = ", ".join(visible(run.removesuffix(" - "), 40) for run in runs[1:4])
    note = f"{len(runs)} runs in one table: {visible(runs[0].removesuffix(' - '), 40)} is read, not {others}"
    return Records(records.kind, records.count, columns, records.words, notes=(*records.notes, note))
