"""Reads a log that is one JSON value: a trainer_state.json, a list of records, or one list of numbers a name."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.errors import UsageError
from lossprobe.logs.lines import LogFile
from lossprobe.logs.objects import Objects
from lossprobe.logs.records import Records, Table
from lossprobe.logs.trainer_state import MAX_BYTES, history_of, parsed


def read_json_file(file: LogFile) -> Records:
    """Return the numbers of a JSON file.

    Raises:
        UsageError: it is no JSON, or holds no records.
    """
    content = parsed(file.whole(MAX_BYTES), file.shown)
    table = Table()
    history = history_of(content)
    if history is not None:
        Objects(table).add_block(history)
        return table.records("trainer_state")
    if isinstance(content, list) and any(isinstance(each, dict) for each in content):
        Objects(table).add_block([each for each in content if isinstance(each, dict)])
    elif isinstance(content, dict) and "step" in content and not _lists(content):
        Objects(table).add_block([content])
    elif isinstance(content, dict) and (lists := _lists(content)):
        for key, cells in lists.items():
            table.add_cells(key, np.arange(len(cells)), cells)
        table.end_block(max(map(len, lists.values())))
    else:
        raise UsageError(
            "log.kind", f"{file.shown}: JSON without a log_history or a list of records, so it is no training log"
        )
    return table.records("json")


def _lists(content: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of an object, such as a history that holds one list a name."""
    return {key: value for key, value in content.items() if isinstance(value, list) and value}
