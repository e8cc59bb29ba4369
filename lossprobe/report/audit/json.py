"""Writes an audit as JSON. `lossprobe/report/audit.schema.json` describes every key."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np

from lossprobe.audit.checks.verdicts import AuditResult, CheckResult, slice_name
from lossprobe.units import visible

SCHEMA = "lossprobe audit"
VERSION = 1
SURROGATES = re.compile("[\ud800-\udfff]")


def audit_to_json(result: AuditResult) -> str:
    """Return an audit as one JSON object in ASCII, with numbers in full precision.

    A missing number is null. NaN and infinite numbers, which JSON does not have, are null too; `nonfinite` lists each
    with its place, as a JSON pointer (RFC 6901), and its value.
    """
    nonfinite: list[dict[str, str]] = []
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "success": result.exit_code == 0,
        "finding": result.finding,
        **{field.name: getattr(result, field.name) for field in dataclasses.fields(result)},
        "texts": [dataclasses.asdict(text) for text in result.texts],
        "checks": [_check(check) for check in result.checks],
    }
    plain = _plain(content, "", nonfinite)
    return json.dumps({**plain, "nonfinite": nonfinite}, indent=1, allow_nan=False, ensure_ascii=True) + "\n"


def _check(result: CheckResult) -> dict[str, Any]:
    """Return a check's settings and its result in one object."""
    found = dataclasses.asdict(result)
    return {**found.pop("check"), "slice": slice_name(result.check), "effect": result.effect, **found}


def _plain(value: Any, pointer: str, nonfinite: list[dict[str, str]]) -> Any:
    """Return a value as JSON types, with NaN and infinite numbers as None and added to `nonfinite`.

    Args:
        value: the value.
        pointer: its place in the object, as a JSON pointer.
        nonfinite: list to which NaN and infinite numbers are added.
    """
    if isinstance(value, dict):
        return {key: _plain(item, f"{pointer}/{key}", nonfinite) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{pointer}/{index}", nonfinite) for index, item in enumerate(value)]
    if isinstance(value, str):  # strict JSON readers refuse half a surrogate pair
        return SURROGATES.sub(lambda found: visible(found[0]), value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        nonfinite.append({"key": pointer, "value": json.dumps(value)})
        return None
    return value
