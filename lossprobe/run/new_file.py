"""A new file while it is written: its sha256 as the bytes come, and a lock that tells its writer from a killed one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

if sys.platform != "win32":
    import fcntl

LONG_AGO = 24 * 3600  # seconds; no file is written for so long


class NewFile(io.RawIOBase):
    """A new file, written from its start to its end; its sha256 is that of the bytes that were handed to it."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._file = os.fdopen(handle, "wb")
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The sha256 of what was written."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of some bytes, and return how many."""
        self._sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._file.tell()

    def finish(self, *, durable: bool) -> None:
        """Hand everything to the system, and force it to disk where it is to be durable."""
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())

    def release(self) -> None:
        """Close the file; `close` only ends the writing, since some writers close what they were given."""
        with contextlib.suppress(OSError):  # what could not be written was said by `write` or `finish`
            self._file.close()


def lock(handle: int) -> bool | None:
    """Return whether a file could be locked; None where there are no locks, as on Windows and some file systems."""
    if sys.platform == "win32":  # no file that is open can be removed there
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def abandoned(handle: int, pid: int) -> bool:
    """Return whether nobody writes a temporary file any more.

    Its writer holds a lock on it, whichever machine or container it runs in. A process of that number here may be
    another one, or may write in a way that takes no lock: its file is left for a day.
    """
    locked = lock(handle)
    if locked and (pid == os.getpid() or not _alive(pid)):
        return True
    return locked is not False and time.time() - os.fstat(handle).st_mtime > LONG_AGO


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
