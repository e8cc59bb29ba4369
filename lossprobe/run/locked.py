"""A folder that only one process writes at a time, with the sha256 of the files it wrote.

Shards of one run write its parts at the same time, each those of its own. So a shard holds the lock of the folder only
while it starts, and then one of its own (`run.shards`); who wants the folder alone is refused while a shard runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from lossprobe.errors import OutputError
from lossprobe.run.files import writing
from lossprobe.run.folder import LINK, TEMPORARY, Folder
from lossprobe.run.presence import stands
from lossprobe.run.shard_locks import running_shard
from lossprobe.run.shown import shown_folder, shown_run
from lossprobe.run.written import WrittenFolder
from lossprobe.units import visible

LOCK = ".lock"
HOLDER = ".lock-holder"
STARTING = "a shard that starts"
LONGEST_PAUSE = 4.0  # seconds between two tries of a shard, of which there may be a thousand


class LockedFolder(WrittenFolder):
    """A folder that is opened once, and locked while it is open."""

    def __init__(self, path: Path, *, among_shards: bool = False) -> None:
        """Create the folder if it is missing, open and lock it, and remove temporary files of killed processes.

        Args:
            path: the folder.
            among_shards: for a shard that starts: wait while another one does, and do not mind those that run.

        Raises:
            OutputError: another process holds the lock, or the folder, its lock or a place in it is a link.
        """
        shown = shown_run(path)
        if path.is_symlink():
            raise OutputError("output.link", f"{shown_folder(path)}: {LINK}")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            super().__init__(path, Folder.open(path, follow=False).handle)
            try:
                self._take_lock(shown, among_shards=among_shards)
            except BaseException:
                self.close()
                raise

    def _take_lock(self, shown: str, *, among_shards: bool) -> None:
        if self.stat(LOCK) is not None:
            self.regular(LOCK)  # refuses a link, which would lock a file elsewhere
        self._lock = FileLock(self.path / LOCK)  # the kernel frees it, even after kill -9
        self._acquire(shown, wait=among_shards)
        try:
            if not stands(self):
                raise OutputError("output.locked", f"{shown}: was replaced while it was opened", hint="try again")
            running = None if among_shards else running_shard(self)
            if running is not None:
                raise OutputError("output.locked", f"{shown}: {running} is running", hint="wait until it has ended")
        except BaseException:
            self._lock.release()
            raise
        # On NFS this also makes the names that this machine remembers of the folder those that are there.
        self.write(HOLDER, f"{os.getpid()} {STARTING if among_shards else ''}".strip().encode(), durable=False)

    def _acquire(self, shown: str, *, wait: bool) -> None:
        pause = 0.02
        while True:
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                holder = self._holder()
                if not wait or not (holder == "unknown" or holder.endswith(STARTING)):
                    raise OutputError(
                        "output.locked", f"{shown}: locked by pid {holder}", hint="wait until it has ended"
                    ) from None
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    def _holder(self) -> str:
        try:
            with self.open_file(HOLDER) as stream:
                return visible(stream.read(40).decode("ascii", "replace"), 40)
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


def _remove_temporary(folder: Folder) -> None:
    for name in folder.names():
        if name.startswith(".") and name.endswith(TEMPORARY):
            folder.remove(name)
