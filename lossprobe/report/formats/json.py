"""Writes the result of a view as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lossprobe.plain_table import PlainTable, Table
from lossprobe.report.formats.cells import is_absent
from lossprobe.run.identity import all_settings

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from lossprobe.report.views.view import View

JSON_SCHEMA = 1
ROWS_AT_A_TIME = 2000  # a row takes kilobytes as a dict


def view_to_json(view: View) -> Iterator[bytes]:
    """Yield a view's result as one JSON object: schema version, command, run, fields, `rows` and `findings`.

    `rows` is the table, `findings` what the rules tell of the result. Missing, NaN and infinite numbers are null.
    Floats have full precision. Memory does not grow with the table.
    """
    result: Any = view.result  # a frozen dataclass
    content: dict[str, Any] = {"schema": JSON_SCHEMA, "command": view.name}
    if view.runs:
        run = view.runs[0]
        content["run"] = {"path": str(run.path), **run.manifest["labels"], "settings": all_settings(run.manifest)}
    for field in dataclasses.fields(result):
        content["rows" if field.name == "table" else field.name] = getattr(result, field.name)
    content["finding"] = result.finding
    content.setdefault("findings", list(view.told_by_rules))
    before = "{"
    for name, value in content.items():
        yield f"{before}\n {json.dumps(name)}: ".encode()
        yield from _rows(value) if _is_table(value) else [_dumped(value)]
        before = ","
    yield b"\n}\n"


def _is_table(value: Any) -> bool:
    """Return whether a value is a table, which is known without loading pandas."""
    pandas = sys.modules.get("pandas")
    return isinstance(value, PlainTable) or (pandas is not None and isinstance(value, pandas.DataFrame))


def _rows(table: Table) -> Iterator[bytes]:
    """Yield the rows of a table as a JSON array, some at a time."""
    for start in range(0, len(table), ROWS_AT_A_TIME):
        rows = _dumped(table[start : start + ROWS_AT_A_TIME])
        yield (b"," if start else b"[") + rows.removeprefix(b"[").removesuffix(b"\n ]")
    yield b"\n ]" if len(table) else b"[]"


def _dumped(value: Any) -> bytes:
    """Return the JSON of a value inside the object: all its lines but the first one are indented by a blank more."""
    text = json.dumps(_plain(value), indent=1, allow_nan=False, ensure_ascii=True)
    return text.replace("\n", "\n ").encode()


def _plain(value: Any) -> Any:
    """Return a value as JSON types: dict, list, str, int, float, bool or None."""
    if _is_table(value):
        names = [str(name) for name in value.columns]
        columns = [map(_plain, _cells(value[name])) for name in value.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    infinite = isinstance(value, float) and not math.isfinite(value)
    return None if infinite or is_absent(value) else value


def _cells(column: npt.NDArray[Any] | pd.Series) -> list[Any]:
    """Return values, float32 as the floats with the fewest digits, as in CSV: 0.1, not 0.10000000149011612."""
    return [float(str(value)) for value in np.asarray(column)] if column.dtype == "float32" else column.tolist()
