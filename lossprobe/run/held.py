"""Keeps a checked file open, so that it stays the same file if another one takes its name."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

PLACES = (Path("/proc/self/fd"), Path("/dev/fd"))  # where the system lists the open files of a process


class HeldFile:
    """A file that is kept open and can be opened again through a path of its own.

    Attributes:
        path: path of this file as long as the object exists.
        size: in bytes.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self.size = os.fstat(handle).st_size
        self._close = weakref.finalize(self, os.close, handle)

    @classmethod
    def of(cls, handle: int) -> HeldFile | None:
        """Keep an open file; None where open files have no path (Windows, where they keep their name)."""
        own = os.dup(handle)
        for place in PLACES:
            with contextlib.suppress(OSError):
                if os.path.samestat((place / str(own)).stat(), os.fstat(own)):
                    return cls(own, place / str(own))
        os.close(own)
        return None
