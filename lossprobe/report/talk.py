"""Talk for people: one line at a time on standard error, so that standard output stays data."""

from __future__ import annotations

import contextlib
import sys

from lossprobe.units import visible


def say(message: str) -> None:
    """Write one line of talk to standard error; nothing in it can start another line or steer the terminal."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):  # full, or its reader has gone: a result is not lost for that
        sys.stderr.write(f"lossprobe: {visible(message)}\n")
        sys.stderr.flush()
