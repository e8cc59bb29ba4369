"""Opens a folder once, and reaches everything in it through its descriptor, without following links.

A prepared folder can have a link, a pipe or a device where a file is expected. It is refused before it is opened, for
reading and for writing. A file is always replaced by a new one, and never written into.
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
from collections.abc import Callable, Iterator
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
    """A link, pipe or device was found where a regular file or folder is expected."""


class Folder:
    """An open folder; close it, or use it in a `with` statement.

    Attributes:
        path: its path.
        handle: its descriptor. Files are opened relative to it, so that another folder that takes the path later does
            not matter. None where folders have no descriptors (Windows): files are then opened by path.
    """

    def __init__(self, path: Path, handle: int | None = None) -> None:
        self.path = path
        self.handle = handle

    @classmethod
    def open(cls, path: Path, *, follow: bool = True) -> Folder:
        """Return an existing folder, opened.

        Args:
            path: its path; links in its parent folders are followed.
            follow: whether the folder itself may be a link.

        Raises:
            NotFollowedError: it is a link and `follow` is False, or it is not a folder.
        """
        return _open_folder(path, path, None, follow=follow)

    def close(self) -> None:
        """Close the folder."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Lock the folder, waiting for other holders of the lock; does nothing without locks (Windows, some shares)."""
        if sys.platform != "win32" and self.handle is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self.handle, fcntl.LOCK_EX)

    def folder(self, name: str, *, make: bool = False) -> Folder:
        """Open a folder in this one; `make` creates a missing one."""
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._at(name), dir_fd=self.handle)
        return _open_folder(self.path / name, self._at(name), self.handle, follow=False)

    def stat(self, name: str) -> os.stat_result | None:
        """Return the `os.stat_result` of a name in this folder, of a link itself; None if nothing is there."""
        try:
            return os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def regular(self, name: str) -> os.stat_result:
        """Return the `os.stat_result` of a regular file in this folder, or in a folder of it.

        Args:
            name: a name, or a folder's and a name with / between them.

        Raises:
            OSError: the file does not exist.
            NotFollowedError: the file or its folder is a link, or the file is a folder, a pipe or a device.
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
        if not stat.S_ISREG(found.st_mode):  # it replaced the file after the first check
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
        """Remove a file, a link itself, or a folder with its content; does nothing if nothing is there."""
        found = self.stat(name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(self._at(name), dir_fd=self.handle)
        else:
            os.unlink(self._at(name), dir_fd=self.handle)

    def rename(self, name: str, target: Folder, new_name: str, *, durable: bool = True) -> None:
        """Rename a file over another one in one step; `durable` flushes both folders to disk."""
        if self.handle is None:
            os.replace(self._at(name), target._at(new_name))  # noqa: PTH105
        else:
            os.replace(self._at(name), target._at(new_name), src_dir_fd=self.handle, dst_dir_fd=target.handle)
        for folder in {self, target} if durable else ():
            folder.sync()

    @contextmanager
    def replace(self, name: str, *, durable: bool = True) -> Iterator[NewFile]:
        """Yield a new file. If the block ends without an error it replaces the file `name`, else it is removed.

        Args:
            name: as in `regular`.
            durable: flush it to disk, so that it survives a power failure.
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
                target.release()  # Windows cannot rename an open file
            self.rename(temporary, self, name, durable=durable)
        finally:
            target.release()
            self.remove(temporary)

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Replace a file by one with these bytes, as `replace` does."""
        with self.replace(name, durable=durable) as target:
            target.write(data)

    def create(self, name: str, data: bytes) -> None:
        """Create a file with a few bytes in one write."""
        handle = os.open(self._at(name), CREATE, 0o666, dir_fd=self.handle)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def sweep(self, name: str) -> None:
        """Remove temporary files that killed writers of a name left in this folder."""
        pattern = re.compile(rf"\.{re.escape(name)}\.([0-9]+)(\.[0-9a-f]+)?{re.escape(TEMPORARY)}")
        for found in self.names():
            match = pattern.fullmatch(found)
            if match:
                with contextlib.suppress(OSError), self.open_file(found) as leftover:
                    if abandoned(leftover.fileno(), int(match[1])):
                        self.remove(found)

    def _new_file(self, name: str) -> tuple[str, int]:
        """Create a temporary file, locked while it is open; return its name and descriptor."""
        while True:
            temporary = f".{name}.{os.getpid()}.{secrets.token_hex(2)}{TEMPORARY}"
            with contextlib.suppress(FileExistsError):
                handle = os.open(self._at(temporary), CREATE, 0o666, dir_fd=self.handle)
                if lock(handle) is not False and os.fstat(handle).st_nlink:
                    return temporary, handle
                os.close(handle)  # another writer removed it as a leftover before it was locked

    def sync(self) -> None:
        """Flush the names in this folder to disk."""
        if self.handle is not None:
            os.fsync(self.handle)
        elif FROM_HANDLE:  # Windows flushes renames by itself
            with Folder.open(self.path) as opened:
                opened.sync()

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


def folders_inside(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the wanted paths directly inside a folder, sorted, without links; none if it is a link or unreadable."""
    try:
        paths = [] if folder.is_symlink() else sorted(folder.iterdir())
        return [path for path in paths if not path.is_symlink() and wanted(path)]
    except OSError:
        return []
