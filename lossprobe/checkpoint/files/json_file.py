"""JSON that came with a checkpoint: strict, bounded, and with one-line errors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
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
        with open_plain(path) as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from None
    if len(data) > max_bytes:
        raise CheckpointError(
            "checkpoint.json_too_large", f"{shown}: larger than {format_count(max_bytes)} bytes, the limit"
        )
    return parse_json(data, shown)


def parse_json(data: bytes, shown: str) -> dict[str, Any]:
    """Return the object that JSON bytes hold; errors as for `read_json`."""
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_constant)
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


def _constant(name: str) -> float:
    """Return an infinity, which state space models have in their configuration; a NaN is always a mistake."""
    if name == "NaN":
        raise ValueError("NaN is not allowed in JSON")
    return math.inf if name == "Infinity" else -math.inf
