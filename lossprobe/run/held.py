"""A file that stays the one that was checked, whatever takes its name later."""

from __future__ import annotations

import contextlib
import os
import weakref
from pathlib import Path

PLACES = (Path("/proc/self/fd"), Path("/dev/fd"))  # where a system shows the files that a process has open


class HeldFile:
    """A file that is kept open, and read anew through a path of its own.

    Attributes:
        path: leads to this file while the object lives.
        size: in bytes.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self.path = path
        self.size = os.fstat(handle).st_size
        self._close = weakref.finalize(self, os.close, handle)

    @classmethod
    def of(cls, handle: int) -> HeldFile | None:
        """Return an open file, held; None where a system has no path to it (Windows, where its name is not taken)."""
        own = os.dup(handle)
        for place in PLACES:
            with contextlib.suppress(OSError):
                if os.path.samestat((place / str(own)).stat(), os.fstat(own)):
                    return cls(own, place / str(own))
        os.close(own)
        return None
