"""Reads the rows of a Parquet file as records, a few at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from lossprobe.text.files import Budget, TextFile, refuse_unreadable
from lossprobe.text.records import JsonRecord, NoNumber

ROWS = 64  # read at once
BUFFER_BYTES = 1 << 20


def read_rows(file: TextFile, budget: Budget) -> Iterator[JsonRecord]:
    """Yield the rows of a Parquet file with the values that JSON would have for them.

    A field of a struct whose value is null is left out, since Parquet gives every struct of a column the same fields.

    Args:
        file: the file.
        budget: counts the bytes of the rows in memory.

    Raises:
        BadTextError: the file is no Parquet, or damaged.
        TextError: more bytes than the budget.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file.refuse_pointer()
        with pq.ParquetFile(file.path, buffer_size=BUFFER_BYTES, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=ROWS, use_threads=False):
                budget.spend(batch.nbytes, file.shown)
                repeats = len(set(batch.schema.names)) < len(batch.schema.names)
                for row in batch.to_pylist(maps_as_pydicts="lossy"):
                    yield JsonRecord({name: _as_json(value) for name, value in row.items()}, repeats)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        refuse_unreadable(file.shown, error)


def _as_json(value: Any) -> Any:
    """Return a value of Arrow as JSON has it: other types become strings, as numbers do that JSON does not have."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else NoNumber(json.dumps(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
