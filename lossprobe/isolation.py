"""What a library finds when it is imported: no configuration but ours, and a folder that nobody else can write.

Some libraries read a file of the working folder, which may have come with a cloned repository, and variables that
change numbers, bytes of pictures, or the code that runs.
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
    """Refuse to work in a folder that has been deleted: torch's matrix library ends the process there.

    Raises:
        UsageError: it has been.
    """
    if not working_folder_is_there():
        raise UsageError("folder.deleted", DELETED, hint=ELSEWHERE)


@contextmanager
def unconfigured(*prefixes: str, file: str, **given: str) -> Iterator[None]:
    """Let a library be imported in the block as if nobody had configured it.

    Other threads notice no more than that, for this moment, the variables are not set. To leave the working folder in
    place of hiding one name in it would pull it from under their relative paths.

    Args:
        prefixes: beginnings of the variables that are hidden.
        file: the library's file in the working folder, by the name under which `os.path.exists` is asked for it.
        given: variables that are set.
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
    """Return the folder for temporary files; None where none can be written."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def private_folder(name: str) -> Path | None:
    """Return a folder for files that are kept between runs and trusted; None where there is no place for one.

    It is the user's own: in the cache folder of the user, else among the temporary files. One that is a link, belongs
    to someone else, or that others can write or replace is passed over: what lies there could be anybody's.
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
    """Yield where the folder may be, the best place first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - Path's raises
    if cache.is_absolute():  # a relative one, or ~ of a user without a home, would lie in the working folder
        yield cache / "lossprobe"
    temporary = temporary_folder()
    if temporary is not None and not _is_working_folder(temporary):  # Python's last resort, and maybe a stranger's
        yield temporary / f"lossprobe-{os.geteuid() if hasattr(os, 'geteuid') else 'user'}"


def _is_working_folder(folder: Path) -> bool:
    try:
        return folder.samefile(".")
    except OSError:  # it has been deleted
        return False


def _is_private(folder: Path) -> bool:
    """Return whether a folder is no link, belongs to this user, and can be written and replaced by nobody else."""
    if not hasattr(os, "geteuid"):  # Windows, where the user's folders are the user's
        return True
    found = folder.lstat()
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
    return own and all(_keeps_what_it_holds(parent) for parent in folder.resolve().parents)


def _keeps_what_it_holds(folder: Path) -> bool:
    """Return whether nobody but owners can rename what is in a folder."""
    mode = folder.stat().st_mode
    return not mode & OTHERS_WRITE or bool(mode & stat.S_ISVTX)
