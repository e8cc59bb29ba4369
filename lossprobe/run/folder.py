"""A folder that is opened once: what is in it is reached from it, and no link in it is followed.

Whoever prepares a folder can put a link, a pipe or a device where a file is expected. Such a thing is refused before it
is opened, for reading and for writing, and a file is only ever replaced by a new one, never written into.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossprobe.run.new_file import NewFile, abandoned, lock

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp"
LINK = "is a symbolic link, which is never followed"
IRREGULAR = "is no regular file"
NO_FOLDER = "is no folder"
FROM_HANDLE = os.open in os.supports_dir_fd and os.listdir in os.supports_fd
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


class NotFollowedError(OSError):
    """A link, or something else that is no plain file or folder, where one belongs."""


class Folder:
    """An open folder; close it, or use it in a `with` statement.

    Attributes:
        path: what it is called.
        handle: its descriptor, through which all that is in it is reached, so that a folder that takes its name later
            is no concern; None for a folder that is reached by its path, as all are where they have none (Windows).
    """

    def __init__(self, path: Path, handle: int | None = None) -> None:
        self.path = path
        self.handle = handle

    @classmethod
    def open(cls, path: Path, *, follow: bool = True) -> Folder:
        """Return an existing folder, opened.

        Args:
            path: its path; links on the way to it are the user's own.
            follow: whether the folder itself may be a link.

        Raises:
            NotFollowedError: it is a link and must be none, or it is no folder.
        """
        return _open_folder(path, path, None, follow=follow)

    def close(self) -> None:
        """Let it go."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Wait until nobody else who locks this folder has it open; without locks (Windows, some shares), go on."""
        if sys.platform != "win32" and self.handle is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self.handle, fcntl.LOCK_EX)

    def folder(self, name: str, *, make: bool = False) -> Folder:
        """Return a folder in this one, opened; with `make` it is made where there is none."""
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._at(name), dir_fd=self.handle)
        return _open_folder(self.path / name, self._at(name), self.handle, follow=False)

    def stat(self, name: str) -> os.stat_result | None:
        """Return what the system knows of a name in this folder, of a link itself; None where there is nothing."""
        try:
            return os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def regular(self, name: str) -> os.stat_result:
        """Return what the system knows of a regular file in this folder, or in a folder of it.

        Args:
            name: a name, or a folder's and a name with / between them.

        Raises:
            OSError: it is not there.
            NotFollowedError: it, or the folder, is a link, or it is another folder, a pipe or a device.
        """
        place, _, last = name.rpartition("/")
        if place:
            with self.folder(place) as inner:
                return inner.regular(last)
        found = os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise _refusal(found.st_mode, IRREGULAR, name)
        return found

    def open_file(self, name: str) -> io.BufferedReader:
        """Return a regular file opened for reading; name and errors as for `regular`."""
        place, _, last = name.rpartition("/")
        if place:
            with self.folder(place) as inner:
                return inner.open_file(last)
        self.regular(name)
        handle = os.open(self._at(name), READ, dir_fd=self.handle)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):  # it took the place of a file just now
            os.close(handle)
            raise _refusal(found.st_mode, IRREGULAR, name)
        return os.fdopen(handle, "rb")

    def read(self, name: str) -> bytes:
        """Return the bytes of a regular file; errors as for `open_file`."""
        with self.open_file(name) as stream:
            return stream.read()

    def names(self) -> list[str]:
        """Return the names in this folder, sorted."""
        return sorted(os.listdir(self.path if self.handle is None else self.handle))  # noqa: PTH208

    def remove(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with all that is in it; nothing where there is nothing."""
        found = self.stat(name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(self._at(name), dir_fd=self.handle)
        else:
            os.unlink(self._at(name), dir_fd=self.handle)

    def rename(self, name: str, target: Folder, new_name: str, *, durable: bool = True) -> None:
        """Put a file in the place of another one, in one step; where it is durable, force both folders to disk."""
        if self.handle is None:
            os.replace(self._at(name), target._at(new_name))  # noqa: PTH105
        else:
            os.replace(self._at(name), target._at(new_name), src_dir_fd=self.handle, dst_dir_fd=target.handle)
        for folder in {self, target} if durable else ():
            folder._sync()

    @contextmanager
    def replace(self, name: str, *, durable: bool = True) -> Iterator[NewFile]:
        """Yield a new file; put it in the place of another one when the block ends well, else remove it.

        Args:
            name: as in `regular`.
            durable: force it to disk, so that it is whole after a power failure too.
        """
        place, _, last = name.rpartition("/")
        if place:
            with self.folder(place) as inner, inner.replace(last, durable=durable) as target:
                yield target
            return
        temporary, handle = self._new_file(name)
        target = NewFile(handle)
        try:
            yield target
            target.finish(durable=durable)
            if not FROM_HANDLE:
                target.release()  # Windows renames no open file
            self.rename(temporary, self, name, durable=durable)
        finally:
            target.release()
            self.remove(temporary)

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Put a file with some bytes in the place of another one, as `replace`."""
        with self.replace(name, durable=durable) as target:
            target.write(data)

    def create(self, name: str, data: bytes) -> None:
        """Make a new file of a few bytes, with no step between."""
        handle = os.open(self._at(name), CREATE, 0o666, dir_fd=self.handle)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def sweep(self, name: str) -> None:
        """Remove the temporary files that killed writers of a name left here."""
        pattern = re.compile(rf"\.{re.escape(name)}\.([0-9]+)(\.[0-9a-f]+)?{re.escape(TEMPORARY)}")
        for found in self.names():
            match = pattern.fullmatch(found)
            if match:
                with contextlib.suppress(OSError), self.open_file(found) as leftover:
                    if abandoned(leftover.fileno(), int(match[1])):
                        self.remove(found)

    def _new_file(self, name: str) -> tuple[str, int]:
        """Return the name and the descriptor of a new temporary file, which is locked while it is open."""
        while True:
            temporary = f".{name}.{os.getpid()}.{secrets.token_hex(2)}{TEMPORARY}"
            with contextlib.suppress(FileExistsError):
                handle = os.open(self._at(temporary), CREATE, 0o666, dir_fd=self.handle)
                if lock(handle) is not False and os.fstat(handle).st_nlink:
                    return temporary, handle
                os.close(handle)  # another writer took it for a leftover before it was locked

    def _sync(self) -> None:
        if self.handle is not None:
            os.fsync(self.handle)
        elif FROM_HANDLE:  # Windows keeps a rename without being told
            with Folder.open(self.path) as opened:
                opened._sync()

    def _at(self, name: str) -> str:
        return name if self.handle is not None else str(self.path / name)


def _open_folder(path: Path, place: Path | str, parent: int | None, *, follow: bool) -> Folder:
    found = os.stat(place, dir_fd=parent, follow_symlinks=follow)
    if not stat.S_ISDIR(found.st_mode):
        raise _refusal(found.st_mode, NO_FOLDER, path.name)
    if not FROM_HANDLE:
        return Folder(path, None)
    flags = DIRECTORY if follow else DIRECTORY | os.O_NOFOLLOW
    return Folder(path, os.open(place, flags, dir_fd=parent))


def _refusal(mode: int, otherwise: str, name: str) -> NotFollowedError:
    return NotFollowedError(errno.ELOOP, LINK if stat.S_ISLNK(mode) else otherwise, name)
