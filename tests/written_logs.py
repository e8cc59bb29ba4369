"""Small logs in the shapes that trainers write."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lossprobe.logs.log import Log, Series
from lossprobe.logs.read import read_log
from lossprobe.logs.tfrecord import masked_checksum


def read(folder: Path, content: str | bytes, columns: Mapping[str, str] | None = None, name: str = "log") -> Log:
    """Write a log and return what is read from it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_log(path, columns)


def points(series: Series | None) -> list[tuple[int, float]]:
    assert series is not None
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def events(*values: tuple[int, str, float]) -> bytes:
    """Return an event file with scalars as simple_value."""
    return b"".join(record(event(*value)) for value in values)


def event(step: int, tag: str, value: float) -> bytes:
    scalar = b"\x0a" + bytes([len(tag)]) + tag.encode() + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + bytes([len(scalar)]) + scalar
    return b"\x09" + struct.pack("<d", 0.0) + b"\x10" + varint(step) + b"\x2a" + bytes([len(summary)]) + summary


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + varint(value >> 7)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_checksum(length)) + data + struct.pack("<I", masked_checksum(data))
