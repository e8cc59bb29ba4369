"""The folder of local copies, `.lossprobe/objects` in the working folder."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from lossprobe.objects.address import Address, address_of

COPIES = Path(".lossprobe", "objects")
RUNS = "s3"  # the folder of runs in it: below it lie BUCKET/KEY
IGNORED = ".gitignore"  # copies are never part of a repository


def copies_folder(name: str) -> Path:
    """Return a folder in the one of local copies, which is made if it is missing.

    Raises:
        OSError: it cannot be made, or a part of its path is a link.
    """
    for place in (COPIES.parent, COPIES, COPIES / name):
        if place.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link, which is never followed", str(place))
        place.mkdir(exist_ok=True)
    if not (COPIES / IGNORED).exists():
        (COPIES / IGNORED).write_text("*\n", "ascii")
    return COPIES / name


def refuse_full(folder: Path, size: int) -> None:
    """Refuse to copy more into a folder than there is space.

    Raises:
        OSError: there are fewer free bytes.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        what = f"{size:,} bytes are to be copied into {folder}, where {free:,} are free"
        raise OSError(errno.ENOSPC, what)


def reason_of_copying(error: OSError) -> str:
    """Return why something could not be copied; what this machine's disk refused names the place there."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def address_of_copy(path: Path) -> Address | None:
    """Return the address for which the folder of a run stands; None for a run of this machine alone."""
    if path.is_absolute() and RUNS not in path.parts:
        return None
    try:
        home, whole = (COPIES / RUNS).absolute(), path.absolute()
    except FileNotFoundError:  # the working folder has been deleted, and its copies with it
        return None
    if not whole.is_relative_to(home):
        return None
    bucket, *key = whole.relative_to(home).parts or ("",)
    return Address(bucket, "/".join(key)) if key else None


def shown_place(path: Path) -> str:
    """Return where a run is, as users name it: its address, or its folder."""
    here = os.path.exists(path)  # noqa: PTH110 - Path.exists fails where the path is too long
    address = address_of_copy(path) or (None if here else address_of(path))
    return str(path) if address is None else address.uri
