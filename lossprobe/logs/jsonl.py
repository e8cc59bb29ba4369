"""Reads JSON Lines: LLaMA-Factory's trainer_log.jsonl, and any file with an object of numbers a line."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from lossprobe.logs.lines import LogFile
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table
from lossprobe.logs.trainer_state import whole
from lossprobe.units import plural


def read_jsonl(file: LogFile) -> Records:
    """Return the numbers of a file with JSON objects, one a line; lines that hold none are counted in a note."""
    table = Table()
    objects = Objects(table)
    skipped = 0
    for block in file.blocks():
        if not _add_fast(block, objects):
            lines = [line for line in block.split(b"\n") if line.strip()]
            records = _parsed(lines)
            skipped += len(lines) - len(records)
            objects.add_block(records)
    notes = [f"{plural(skipped, 'line')} without a JSON object left out"] if skipped else []
    kind = "llamafactory" if {"current_steps", "percentage"} <= table.keys() else "jsonl"
    return table.records(kind, notes=notes)


def _add_fast(block: bytes, objects: Objects) -> bool:
    """Add a block with pyarrow, three times as fast; return False where only Python's parser keeps all it says.

    pyarrow knows no NaN, and tells a null from a key that is not there only where a key has one of the two.
    """
    import pyarrow as pa
    import pyarrow.json

    if not block.isascii() and not _is_utf8(block):
        return False
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        found = pyarrow.json.read_json(pa.BufferReader(block), read_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    names = found.column_names
    columns = {name: found[name].combine_chunks() for name in names}
    empty = {name: each.is_null().to_numpy(zero_copy_only=False) for name, each in columns.items() if each.null_count}
    written = {name: block.count(json.dumps(name, ensure_ascii=False).encode() + b":") for name in empty}
    nulls = {name for name in empty if written[name] == found.num_rows}
    absent = {name for name in empty if written[name] == found.num_rows - columns[name].null_count}
    if nulls | absent != set(empty) or not all(_is_plain(each.type) for each in columns.values()):
        return False
    if not empty:
        objects.saw(names)
    for name, column in columns.items():
        filled = ~empty[name] if name in empty else np.ones(found.num_rows, np.bool_)
        if name in nulls:
            filled |= objects.nan_among(name, names, empty)
        rows = np.flatnonzero(filled)
        if pa.types.is_string(column.type):
            cells = column.filter(pa.array(filled)).to_pylist()
            objects.table.add_cells(name, rows, [math.nan if cell is None else cell for cell in cells])
        elif pa.types.is_boolean(column.type):  # no numbers, but a null beside one can be the NaN of a loss
            missing = np.flatnonzero(filled & empty[name]) if name in empty else rows[:0]
            objects.table.add(name, missing, np.full(len(missing), np.nan))
        else:
            objects.table.add(name, rows, column.to_numpy(zero_copy_only=False)[rows].astype(np.float64))
    objects.table.end_block(found.num_rows)
    return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_plain(type: Any) -> bool:
    """Return whether a column of pyarrow holds numbers, text, truth values or only nulls."""
    import pyarrow.types as kinds

    known = (kinds.is_floating, kinds.is_int64, kinds.is_string, kinds.is_boolean, kinds.is_null)
    return any(is_kind(type) for is_kind in known)


def _parsed(lines: list[bytes]) -> list[Object]:
    """Return the objects among lines."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        records = [_object(line) for line in lines]
    return [record for record in records if isinstance(record, dict)]


def _object(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "replace"), parse_int=whole)
    except (ValueError, RecursionError):
        return None
