"""Opening what came with a checkpoint: regular files only, through links where there are any."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
HUB_CACHE = "blobs"  # where the cache of the Hugging Face hub keeps the files that its folders link to


def open_plain(path: Path) -> BufferedReader:
    """Return a regular file, open for reading.

    Anything else under its name would block for ever (a pipe), never end, or act when it is opened (a device).

    Raises:
        OSError: nothing there, not readable, or no regular file; `strerror` says which.
        ValueError: a name that no file can have.
    """
    _check_plain(path, path.stat())
    # Without O_NONBLOCK, a pipe that has just taken the file's place would block here.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(handle, "rb")
    try:
        _check_plain(path, os.fstat(handle))
    except OSError:
        stream.close()
        raise
    return stream


def _check_plain(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.ENOTSUP, f"is not a file but {kind}", str(path))


def unreadable(shown: str, error: OSError | ValueError) -> CheckpointError:
    """Return the refusal of a file that cannot be read (ValueError: a name that no file can have)."""
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return CheckpointError("checkpoint.link_loop", f"{shown}: symbolic link loop")
    reason = error.strerror if isinstance(error, OSError) else None
    return CheckpointError("checkpoint.unreadable", f"{shown}: cannot be read: {reason or visible(str(error), 80)}")


def stands(path: Path) -> bool:
    """Return whether anything has this name: also a pipe or a dangling link, which `open_plain` then refuses."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def absolute(files: Iterable[Path]) -> tuple[str, ...]:
    """Return files as `CheckpointFacts.files` names them: each once, absolute, links as they stand."""
    return tuple(dict.fromkeys(str(file.absolute()) for file in files))


def followed_links(files: Iterable[Path]) -> tuple[str, ...]:
    """Return one line for each file that is a link out of its folder, but for the hub's cache, which is made of links.

    A link is followed, since the user named the folder that it stands in; but what stands there is then another's.
    """
    lines = []
    for file in files:
        target = file.resolve()
        inside = target.parent == file.parent.resolve() or target.parent.name == HUB_CACHE
        if file.is_symlink() and not inside:
            lines.append(f"{visible(file.name, 80)} is a link, read from {visible(str(target), 200)}")
    return tuple(lines)
