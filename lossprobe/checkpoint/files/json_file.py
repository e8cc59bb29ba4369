"""Read JSON files of a checkpoint strictly and up to a size limit, with errors of one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.plain_files import read_at_most
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

MAX_CONFIG_BYTES = 1 << 20


def read_json(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        CheckpointError: the file is unreadable, larger than `max_bytes`, not UTF-8, not JSON, nested too deeply, holds
            NaN or a key twice, or is not an object. The message gives path and reason, and the line of a syntax error.
    """
    shown = visible(str(path), 200)
    data = read_at_most(path, max_bytes)
    if len(data) > max_bytes:
        raise CheckpointError(
            "checkpoint.json_too_large", f"{shown}: larger than {format_count(max_bytes)} bytes, the limit"
        )
    return parse_json(data, shown)


def parse_json(data: bytes, shown: str) -> dict[str, Any]:
    """Return the object that JSON bytes hold.

    Args:
        data: the bytes, UTF-8.
        shown: name of the file for messages.

    Raises:
        CheckpointError: as `read_json` raises it for the content of a file.
    """
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
    """Return the pairs as a dict, refusing a key given twice, of which Python would silently keep the last."""
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key} appears twice")
            seen.add(key)
    return content


def _constant(name: str) -> float:
    """Return an infinity, which state space models have in their configuration, and refuse NaN, always a mistake."""
    if name == "NaN":
        raise ValueError("NaN is not allowed in JSON")
    return math.inf if name == "Infinity" else -math.inf
