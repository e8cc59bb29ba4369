"""A folder that only one process writes at a time, with the sha256 of the files it wrote."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lossprobe.errors import OutputError
from lossprobe.run.files import sha256_of_stream, writing
from lossprobe.run.folder import LINK, TEMPORARY, Folder
from lossprobe.run.new_file import NewFile
from lossprobe.units import visible

LOCK = ".lock"
HOLDER = ".lock-holder"


class LockedFolder(Folder):
    """A folder that is opened once, and locked while it is open.

    Attributes:
        digests: name → sha256 of the bytes written, by this process or, as its stored record says, by an earlier one.
    """

    def __init__(self, path: Path) -> None:
        """Create the folder if it is missing, open and lock it, and remove temporary files of killed processes.

        Raises:
            OutputError: another process holds the lock, or the folder, its lock or a place in it is a link.
        """
        self.digests: dict[str, str] = {}
        shown = visible(str(path), 200)
        if path.is_symlink():
            raise OutputError("output.link", f"{shown}: {LINK}")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            super().__init__(path, Folder.open(path, follow=False).handle)
            try:
                self._take_lock(shown)
            except BaseException:
                self.close()
                raise

    def _take_lock(self, shown: str) -> None:
        if self.stat(LOCK) is not None:
            self.regular(LOCK)  # refuses a link, which would lock a file elsewhere
        self._lock = FileLock(self.path / LOCK)  # the kernel frees it, even after kill -9
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(
                "output.locked", f"{shown}: locked by pid {self._holder()}", hint="wait until it has ended"
            ) from None
        if self.handle is not None and not os.path.samestat(self.path.lstat(), os.fstat(self.handle)):
            self._lock.release()
            raise OutputError("output.locked", f"{shown}: was replaced while it was opened", hint="try again")
        self.write(HOLDER, str(os.getpid()).encode(), durable=False)

    def _holder(self) -> str:
        try:
            with self.open_file(HOLDER) as stream:
                return visible(stream.read(20).decode("ascii", "replace"), 20)
        except OSError:
            return "unknown"

    def unlock(self, *, remove: bool) -> None:
        """Free the lock and close the folder; `remove` also removes the lock file, and the folder if it is then empty.

        Otherwise the lock file stays: another process may wait for it, and a new lock file would not exclude that one.
        """
        with contextlib.suppress(OSError):
            self.remove(HOLDER)
            if remove:
                self.remove(LOCK)
        self._lock.release()
        self.close()
        if remove:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def remove_temporary_files(self, folders: Sequence[str]) -> None:
        """Remove temporary files in this folder and some of its folders: a living writer would hold the lock."""
        _remove_temporary(self)
        for name in folders:
            with contextlib.suppress(OSError), self.folder(name) as inner:
                _remove_temporary(inner)

    @contextmanager
    def target(self, name: str) -> Iterator[NewFile]:
        """Yield a new file that replaces `name`, and note its sha256.

        Raises:
            OutputError: it cannot be written.
        """
        with writing(self.path / name):
            with self.replace(name) as target:
                yield target
            self.digests[name] = target.sha256

    def intact(self, name: str) -> bool:
        """Return whether a file exists with the bytes that were written."""
        try:
            with self.open_file(name) as stream:
                return sha256_of_stream(stream) == self.digests.get(name)
        except OSError:
            return False


def _remove_temporary(folder: Folder) -> None:
    for name in folder.names():
        if name.startswith(".") and name.endswith(TEMPORARY):
            folder.remove(name)
