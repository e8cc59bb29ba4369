"""How the records of a file lie in it (a JSON value a line, one array, or rows of Parquet), and how they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from lossprobe.errors import BadTextError
from lossprobe.text.decoding import BOM, decode
from lossprobe.text.faults import Faults
from lossprobe.text.files import Budget, TextFile
from lossprobe.text.parquet_rows import read_rows
from lossprobe.text.records import JsonRecord, read_array, read_line
from lossprobe.units import format_count, plural

MARKUP = (".json", ".csv", ".tsv")  # formats that are rarely meant to be scored with their markup
SHOWN_LINES = 5
OPENED = b"{"  # all of the first line where objects are indented


class RecordLayout(Enum):
    """How the records of a file lie in it."""

    LINES = "lines"
    ARRAY = "array"
    PARQUET = "parquet"


def record_layout(file: TextFile, max_bytes: int, *, asked: bool) -> RecordLayout | None:
    """Return how the records of a file lie in it; None where the file is plain text.

    `.parquet`, `.jsonl` and `.ndjson` hold records. A `.json` does where it is an array of objects, or where its first
    two lines are objects; a single object, such as a settings file, is plain text.

    Args:
        file: the file; its first lines are read.
        max_bytes: the most that is read of it.
        asked: the user named the field that holds the text or the kind of the records, so that any file is one of
            records.
    """
    if file.is_parquet:
        return RecordLayout.PARQUET
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


def raw_records(
    file: TextFile, layout: RecordLayout, budget: Budget, faults: Faults, notice: Callable[[str], None]
) -> Iterator[tuple[int, str, Any]]:
    """Yield line, place for messages, and value of each record of a file. Of Parquet the line is the row, from 1.

    Args:
        file: the file.
        layout: how its records lie in it.
        budget: counts the bytes that are read.
        faults: gets the lines that are not JSON.
        notice: called with a line about what was changed or looks odd.

    Raises:
        BadTextError: the file cannot be read beyond what was yielded.
    """
    repeated: list[int] = []
    for number, where, record in _placed(file, layout, budget, faults, notice):
        if record.repeats:
            repeated.append(number)
        yield number, f"{file.shown}: {where}", record.value
    if repeated:
        more = ", …" if len(repeated) > SHOWN_LINES else ""
        lines = ", ".join(map(format_count, repeated[:SHOWN_LINES])) + more
        count = plural(len(repeated), "record")
        notice(f"{file.shown}: {count} with the same key twice, where the last value counts (line {lines})")


def _placed(
    file: TextFile, layout: RecordLayout, budget: Budget, faults: Faults, notice: Callable[[str], None]
) -> Iterator[tuple[int, str, JsonRecord]]:
    """Yield line, place in the file, and record."""
    if layout is RecordLayout.LINES:
        for number, record in _read_lines(file, budget, faults, notice):
            yield number, f"line {number}", record
    elif layout is RecordLayout.PARQUET:
        for number, record in enumerate(read_rows(file, budget), start=1):
            yield number, f"row {number}", record
    else:
        text = decode(file.read(budget), file.shown, notice)
        for place, (number, record) in enumerate(read_array(text, file.shown), start=1):
            yield number, f"record {place} (line {number})", record


def _read_lines(
    file: TextFile, budget: Budget, faults: Faults, notice: Callable[[str], None]
) -> Iterator[tuple[int, JsonRecord]]:
    start = 0
    for number, data in enumerate(file.lines(budget), start=1):
        if data.strip():
            try:
                line = decode(data, file.shown, notice, number, start)
                yield number, read_line(line, f"{file.shown}: line {number}")
            except BadTextError as fault:
                # Of what no line of the file can be read for, one is told.
                if start == 0 and (fault.id == "text.utf16" or data.removeprefix(BOM).strip() == OPENED):
                    raise _spread(fault) from None
                faults.add(fault, "record", file.shown)
        start += len(data)


def _spread(fault: BadTextError) -> BadTextError:
    """Return the fault of a first line that makes those of all others."""
    if fault.id == "text.utf16":
        return fault
    return BadTextError(
        fault.id, f"{fault.message}; the record goes on in the next lines",
        hint="each record needs a line of its own, for instance with jq -c .",
    )  # fmt: skip


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


def oddity(text: str, file: TextFile) -> str | None:
    """Return what is odd about a file that is scored as plain text, for a notice; None if nothing is.

    A file named JSON, CSV or TSV has a notice for its name already.
    """
    if text.isspace():
        return "nothing but white space"
    told = file.name.lower().removesuffix(".gz").endswith(MARKUP)
    if told or not text.startswith("{") or not _is_object(text.partition("\n")[0].encode("utf-8", "replace")):
        return None
    return "begins with a JSON record, but is scored as plain text; `data_kind` reads its records"
