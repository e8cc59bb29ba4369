"""Reads JSON Lines: LLaMA-Factory's trainer_log.jsonl, and any file with an object of numbers a line."""

from __future__ import annotations

import json
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

    pyarrow knows no NaN, and does not tell a null from a key that is not there.
    """
    import pyarrow as pa
    import pyarrow.json

    if b"null" in block:
        return False
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        found = pyarrow.json.read_json(pa.BufferReader(block), read_options=options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    if any(not _is_plain(field.type) for field in found.schema):
        return False
    full = [name for name in found.column_names if not found[name].null_count]
    if len(full) == found.num_columns:
        objects.saw(full)
    for name in found.column_names:
        column = found[name].combine_chunks()
        rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        if pa.types.is_string(column.type):
            objects.table.add_cells(name, rows, column.drop_null().to_pylist())
        elif not pa.types.is_boolean(column.type):
            objects.table.add(name, rows, column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64))
    objects.table.end_block(found.num_rows)
    return True


def _is_plain(type: Any) -> bool:
    """Return whether a column of pyarrow holds numbers, text or truth values."""
    import pyarrow.types as kinds

    return bool(kinds.is_floating(type) or kinds.is_int64(type) or kinds.is_string(type) or kinds.is_boolean(type))


def _parsed(lines: list[bytes]) -> list[Object]:
    """Return the objects among lines."""
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        records = [_object(line) for line in lines]
    return [record for record in records if isinstance(record, dict)]


def _object(line: bytes) -> Any:
    try:
        return json.loads(line, parse_int=whole)
    except (ValueError, RecursionError):
        return None
