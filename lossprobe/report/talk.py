"""Writes messages for people to standard error, so that standard output holds only data."""

from __future__ import annotations

import contextlib
import sys

from lossprobe.units import visible


def say(message: str) -> None:
    """Write a message as one line to standard error, with unprintable characters escaped."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # a full disk or closed pipe must not lose a result
        sys.stderr.write(f"lossprobe: {visible(message)}\n")
        sys.stderr.flush()
