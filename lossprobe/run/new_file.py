"""A new file while it is written: computes its sha256, and holds a lock that shows that its writer is alive."""

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

LONG_AGO = 24 * 3600  # seconds; no file takes that long to write


class NewFile(io.RawIOBase):
    """A new file, written once from start to end; its sha256 is that of the bytes passed to `write`."""

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
        """Write all the bytes, and return their number."""
        self._sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._file.tell()

    def finish(self, *, durable: bool) -> None:
        """Flush the file to the system, and to disk if it is durable."""
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())

    def release(self) -> None:
        """Close the file. `close` only ends the writing, since some libraries close the file they were given."""
        with contextlib.suppress(OSError):  # errors of writing were raised by `write` or `finish`
            self._file.close()


def lock(handle: int) -> bool | None:
    """Lock a file and return whether that worked; None without locks, as on Windows and some file systems."""
    if sys.platform == "win32":  # Windows cannot remove an open file
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def abandoned(handle: int, pid: int) -> bool:
    """Return whether the writer of a temporary file is gone.

    A living writer holds a lock on its file, on whichever machine or container it runs. If the lock is free, the file
    is abandoned if no process here has the number in its name. If one has, which may be another program, and on file
    systems without locks, the file is kept for a day.
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
