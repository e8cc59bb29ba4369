"""Talk for people: one line at a time on standard error, so that standard output stays data."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Write one line of talk to standard error."""
    sys.stderr.write(f"lossprobe: {message}\n")
    sys.stderr.flush()
