"""How the records of a file lie in it: one JSON value a line, or one array."""

from __future__ import annotations

import json
from enum import Enum

from lossprobe.errors import BadTextError
from lossprobe.text.decoding import BOM
from lossprobe.text.files import Budget, TextFile


class RecordLayout(Enum):
    """How the records of a file lie in it."""

    LINES = "lines"
    ARRAY = "array"


def record_layout(file: TextFile, max_bytes: int, *, asked: bool) -> RecordLayout | None:
    """Return how the records of a file lie in it; None where the file is plain text.

    `.jsonl` and `.ndjson` hold records. A `.json` does where it is an array of objects, or where its first two lines
    are objects; a single object, such as a settings file, is plain text.

    Args:
        file: the file; its first lines are read.
        max_bytes: the most that is read of it.
        asked: the user named the field that holds the text, so that any file is one of records.
    """
    named = asked or file.is_jsonl
    if not named and not file.is_json:
        return None
    try:
        first, second = _first_lines(file, max_bytes)
    except BadTextError:  # reading the file says what is wrong with it
        first = second = b""
    if first.startswith(b"["):
        inner = first[1:].strip() or second
        return RecordLayout.ARRAY if named or inner.startswith(b"{") else None
    return RecordLayout.LINES if named or (_is_object(first) and second.startswith(b"{")) else None


def _first_lines(file: TextFile, max_bytes: int) -> tuple[bytes, bytes]:
    """Return the first two lines that are not empty, without space around them; b"" where there is none."""
    lines = [b"", b""]
    found = 0
    for line in file.lines(Budget(max_bytes)):
        if kept := line.removeprefix(BOM).strip():
            lines[found] = kept
            found += 1
        if found == len(lines):
            break
    return lines[0], lines[1]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
