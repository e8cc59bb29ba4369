"""Reads a training log of any kind; what it is shows in its content, not in its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from lossprobe.errors import UsageError
from lossprobe.logs.json_file import read_json_file
from lossprobe.logs.jsonl import read_jsonl
from lossprobe.logs.lines import LogFile, opened
from lossprobe.logs.log import Log
from lossprobe.logs.nanogpt import PATTERN as NANOGPT
from lossprobe.logs.nanogpt import read_nanogpt
from lossprobe.logs.records import Records
from lossprobe.logs.series import make_log

Reader = Callable[[LogFile], Records]
CONSOLES = ((NANOGPT, read_nanogpt),)


def read_log(path: Path, columns: Mapping[str, str] | None = None) -> Log:
    """Return a training log.

    Args:
        path: its file; "-" is standard input.
        columns: which name in the log is the step, the loss and so on, such as {"step": "it", "loss": "tr"}; a key may
            be any name that `meaning` understands, as "val_loss".

    Raises:
        UsageError: it cannot be read, is no training log, or has no loss.
    """
    named = {name: role for role, name in (columns or {}).items()}
    with opened(path) as file:
        records = _reader(file)(file)
        return make_log(path, replace(records, notes=(*file.notes, *records.notes)), named)


def _reader(file: LogFile) -> Reader:
    """Return the reader for what a file holds."""
    start = file.start().lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] in (b"{", b"["):
        first = start.split(b"\n", 1)[0]
        if _is_object(first) and b'"log_history"' not in first:
            return read_jsonl
        if not start.startswith(b"{'"):
            return read_json_file
    for block in file.blocks():
        matches = [(len(pattern.findall(block)), reader) for pattern, reader in CONSOLES]
        count, reader = max(matches, key=lambda match: match[0])
        if count:
            return reader
    raise UsageError("log.kind", f"{file.shown}: is no training log that lossprobe knows")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
