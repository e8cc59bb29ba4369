"""Open the files of a checkpoint: only regular files, symbolic links followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from lossprobe import pointers
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
HUB_CACHE = "blobs"  # folder in which the Hugging Face cache keeps the files that its snapshots link to


def open_plain(path: Path) -> BufferedReader:
    """Return a stream on a regular file, open for reading bytes.

    Other kinds are refused: a pipe can block for ever, and a device can be endless or act when it is opened.

    Raises:
        OSError: the file is missing, not readable, not a regular file or a pointer to one; `strerror` says which.
        ValueError: no file can have this name.
    """
    _check_plain(path, path.stat())
    # Without O_NONBLOCK this call would block if a pipe replaced the file after the check above.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(handle, "rb")
    try:
        _check_plain(path, os.fstat(handle))
        if stream.peek(len(pointers.START)).startswith(pointers.START):
            raise OSError(errno.ENODATA, f"{pointers.WHAT}; {pointers.FETCH}", str(path))
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
    """Return the CheckpointError for a file that cannot be read.

    Args:
        shown: name of the file for messages.
        error: what opening it raised; a ValueError means that no file can have this name.
    """
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return CheckpointError("checkpoint.link_loop", f"{shown}: symbolic link loop")
    reason = error.strerror if isinstance(error, OSError) else None
    return CheckpointError("checkpoint.unreadable", f"{shown}: cannot be read: {reason or visible(str(error), 80)}")


def read_at_most(path: Path, size: int) -> bytes:
    """Return the first `size` bytes of a regular file, and one more where it is longer, which shows that it is.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        with open_plain(path) as stream:
            return stream.read(size + 1)
    except (OSError, ValueError) as error:
        raise unreadable(visible(str(path), 200), error) from None


def stands(path: Path) -> bool:
    """Return whether anything has this name, including a pipe or a dangling link, which `open_plain` then refuses."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def is_huggingface(path: Path) -> bool:
    """Return whether a path is a directory with a config.json."""
    return path.is_dir() and stands(path / "config.json")


def absolute(files: Iterable[Path]) -> tuple[str, ...]:
    """Return absolute paths for `CheckpointFacts.files`: each once, symbolic links not resolved."""
    return tuple(dict.fromkeys(str(file.absolute()) for file in files))


def followed_links(files: Iterable[Path]) -> tuple[str, ...]:
    """Return one notice for each file that is a link to another folder.

    Such links are followed, but the user should know that the content comes from elsewhere. Links into the Hugging
    Face cache are not mentioned, because all its snapshots consist of links.
    """
    lines = []
    for file in files:
        target = file.resolve()
        inside = target.parent == file.parent.resolve() or target.parent.name == HUB_CACHE
        if file.is_symlink() and not inside:
            lines.append(f"{visible(file.name, 80)} is a link, read from {visible(str(target), 200)}")
    return tuple(lines)
