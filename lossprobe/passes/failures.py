"""Turns a failure that another process told of, as JSON data, into the error that would be raised here."""

from __future__ import annotations

from typing import Any

from lossprobe import errors
from lossprobe.errors import LossprobeError

PLAIN = {"MemoryError": MemoryError, "RuntimeError": RuntimeError}


def error_of(failure: dict[str, Any], node: str = "") -> Exception:
    """Return the error of a failure, told of the node where it happened; "" for a node that need not be named.

    >>> told = {"kind": "UsageError", "id": "a.b", "reason": "is empty", "subject": "x", "hint": None, "details": []}
    >>> str(error_of(told, "b (10.0.0.2)"))
    'node b (10.0.0.2): x: is empty'
    """
    kind, reason = failure["kind"], failure["reason"]
    if kind in PLAIN:
        return PLAIN[kind](reason)
    if kind == "OSError":
        return OSError(failure["errno"], reason)
    declared: type[LossprobeError] = getattr(errors, kind)
    error = declared(
        failure["id"], reason, hint=failure["hint"], subject=failure["subject"], details=failure["details"]
    )
    if node:
        error.put_before(f"node {node}")
    return error
