"""JSON that came with a checkpoint: strict, bounded, and with one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

MAX_CONFIG_BYTES = 1 << 20


def read_json(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        CheckpointError: unreadable, larger than `max_bytes`, not UTF-8, not JSON, nested too deeply, with
            NaN or a key given twice, or not an object; the message gives path, reason and line.
    """
    shown = visible(str(path), 200)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError("checkpoint.unreadable", f"{shown}: cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise CheckpointError(
            "checkpoint.json_too_large", f"{shown}: {format_count(len(data))} bytes (limit {format_count(max_bytes)})"
        )
    return parse_json(data, shown)


def parse_json(data: bytes, shown: str) -> dict[str, Any]:
    """Return the object that JSON bytes hold; errors as for `read_json`."""
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise CheckpointError("checkpoint.bad_json", f"{shown}: line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise CheckpointError("checkpoint.bad_json", f"{shown}: nested too deeply") from None
    except ValueError as error:
        raise CheckpointError("checkpoint.bad_json", f"{shown}: {visible(str(error), 120)}") from None
    if not isinstance(content, dict):
        raise CheckpointError("checkpoint.bad_json", f"{shown}: holds a {type(content).__name__}, not an object")
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key} appears twice")
            seen.add(key)
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed in JSON")
