"""The locks of the shards of a run, `RUN/plan/.shard-3`: one process works as a shard at a time.

Locks are taken, and looked for, only while the lock of the whole folder is held. So no shard starts while a process has
the run alone, and the lock files can be removed with the plan.
"""

from __future__ import annotations

import re

from filelock import FileLock, Timeout

from lossprobe.run.folder import Folder
from lossprobe.run.schema import PLAN_PARTS

NAME = re.compile(r"\.shard-([1-9][0-9]*)")


def take_shard_lock(folder: Folder, index: int) -> FileLock | None:
    """Return the lock of the shard of a number, taken; None if another process has it.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    return take_lock(folder, f".shard-{index}")


def take_lock(folder: Folder, name: str) -> FileLock | None:
    """Return the lock of a name in the folder of the plan, taken; None if another process has it.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    with folder.folder(PLAN_PARTS, make=True) as plan:
        if plan.stat(name) is not None:
            plan.regular(name)  # refuses a link, which would lock a file elsewhere
    lock = FileLock(folder.path / PLAN_PARTS / name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def running_shard(folder: Folder) -> str | None:
    """Return "shard 3" for one that a process works as; None if none does."""
    try:
        with folder.folder(PLAN_PARTS) as plan:
            found = [int(match[1]) for match in map(NAME.fullmatch, plan.names()) if match]
    except OSError:
        return None
    for index in sorted(found):
        lock = take_shard_lock(folder, index)
        if lock is None:
            return f"shard {index}"
        lock.release()
    return None
