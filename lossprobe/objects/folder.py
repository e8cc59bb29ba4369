"""The folder of local copies, `.lossprobe/objects` in the working folder."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

COPIES = Path(".lossprobe", "objects")
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
