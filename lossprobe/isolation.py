"""Isolation of imported libraries from foreign configuration, and a cache folder that nobody else can write.

Some libraries read a configuration file from the working folder, which may have come with a cloned repository, and
environment variables. Both can change numbers, the bytes of pictures, or the code that runs.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lossprobe.errors import UsageError

DELETED, ELSEWHERE = "the working folder has been deleted", "go to a folder that is there, and repeat the command"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def working_folder_is_there() -> bool:
    """Return whether the working folder still exists."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def refuse_deleted_folder() -> None:
    """Refuse to work in a folder that has been deleted, because torch's matrix library aborts the process there.

    Raises:
        UsageError: the working folder has been deleted.
    """
    if not working_folder_is_there():
        raise UsageError("folder.deleted", DELETED, hint=ELSEWHERE)


@contextmanager
def unconfigured(*prefixes: str, file: str, **given: str) -> Iterator[None]:
    """Hide a library's configuration file and environment variables inside the block, where it is imported.

    The file is hidden by answering `os.path.exists` with False for its name. Changing the working folder instead would
    break the relative paths of other threads. They only see that the variables are unset inside the block.

    Args:
        prefixes: environment variables that start with one of these are removed inside the block.
        file: name of the configuration file, as the library passes it to `os.path.exists`.
        given: environment variables that are set inside the block.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    exists = os.path.exists
    for name in before:
        del os.environ[name]
    os.environ.update(given)
    setattr(os.path, "exists", lambda path: path != file and exists(path))  # noqa: B010 - not assignable for mypy
    try:
        yield
    finally:
        setattr(os.path, "exists", exists)  # noqa: B010
        for name in given:
            os.environ.pop(name, None)
        os.environ.update(before)


def temporary_folder() -> Path | None:
    """Return the folder for temporary files, or None where no folder can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def private_folder(name: str) -> Path | None:
    """Return a folder for cached files that are trusted, such as compiled code, or None where there is no safe place.

    The folder lies in the user's cache folder, or else in the folder for temporary files. A folder that is a link,
    belongs to another user, or can be written or replaced by others is not used: anybody could have put files there.
    """
    for place in _places():
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_private(place):
                folder = place / name
                folder.mkdir(mode=0o700, exist_ok=True)
                if os.access(folder, os.W_OK):
                    return folder
        except OSError:  # no home, a file in its place, a full or read-only disk
            continue
    return None


def _places() -> Iterator[Path]:
    """Yield the parent folders to try, the preferred one first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - Path's raises
    if cache.is_absolute():  # a relative path, or "~" of a user without a home, would lie in the working folder
        yield cache / "lossprobe"
    temporary = temporary_folder()
    # Python falls back to the working folder for temporary files; its contents may come from a stranger.
    if temporary is not None and not _is_working_folder(temporary):
        yield temporary / f"lossprobe-{os.geteuid() if hasattr(os, 'geteuid') else 'user'}"


def _is_working_folder(folder: Path) -> bool:
    try:
        return folder.samefile(".")
    except OSError:  # the working folder has been deleted
        return False


def _is_private(folder: Path) -> bool:
    """Return whether a folder is not a link, belongs to this user, and cannot be written or replaced by others."""
    if not hasattr(os, "geteuid"):  # Windows: other users cannot write the user's folders
        return True
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
    return own and all(_keeps_what_it_holds(parent) for parent in folder.resolve().parents)


def _keeps_what_it_holds(folder: Path) -> bool:
    """Return whether others cannot rename the entries of a folder: they may not write it, or it has the sticky bit."""
    mode = folder.stat().st_mode
    return not mode & OTHERS_WRITE or bool(mode & stat.S_ISVTX)
