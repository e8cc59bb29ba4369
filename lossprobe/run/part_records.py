"""The folder of an unfinished run or pair, and the records that mark its parts as complete.

A record, `plan/part-N.json`, holds the sha256 of each file of a part and is written last: a part with a record is
complete, and one whose files still have these hashes is undamaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lossprobe.errors import OutputError
from lossprobe.run.files import json_bytes, read_sealed, sealed, writing
from lossprobe.run.folder import Folder
from lossprobe.run.locked import LOCK, LockedFolder
from lossprobe.run.schema import PLAN_PARTS
from lossprobe.run.shown import shown_folder
from lossprobe.run.written import WrittenFolder

RECORD = ".json"  # of the name of a part's record; other files of that folder are the planned rows
KEPT = "finished parts are kept"
READERS = 8  # files read at once


def lock_own(
    path: Path, names: Sequence[str], folders: Sequence[str], kind: str, *, among_shards: bool = False
) -> LockedFolder:
    """Return a folder, locked, without what killed processes left there; it is created if it does not exist.

    Args:
        path: the folder.
        names: files of which a folder of this kind has at least one.
        folders: its folders.
        kind: what it is, such as "run".
        among_shards: as of a `LockedFolder`; temporary files then stay, since other shards may be writing them.

    Raises:
        OutputError: another process is writing it, it is a link, or it has files but none of the named ones.
    """
    # The lock is looked for last: another process that starts makes it before anything else.
    holds_files = path.is_dir() and not path.is_symlink() and any(path.iterdir())
    if holds_files and not any(os.path.lexists(path / name) for name in (*names, LOCK)):
        raise OutputError("output.foreign", f"{shown_folder(path)}: exists and is no {kind}")
    folder = LockedFolder(path, among_shards=among_shards)
    if not among_shards:
        folder.remove_temporary_files(folders)
    return folder


def note_kept(error: BaseException | None, folder: Folder, planned: str = "") -> None:
    """Note on what stops the process, and is no fault of it, what is kept: finished parts, else what was planned."""
    if error is None or isinstance(error, Exception) or hasattr(error, "__notes__"):  # an inner store has noted it
        return
    kept = KEPT if recorded(folder) else planned
    if kept:
        error.add_note(kept)


def record_name(index: int) -> str:
    """Return the path of the record of a finished part, relative to its run."""
    return f"{PLAN_PARTS}/part-{index:05d}{RECORD}"


def recorded(folder: Folder) -> set[str]:
    """Return the paths of the records of finished parts, as `record_name` does."""
    try:
        with folder.folder(PLAN_PARTS) as plan:
            return {f"{PLAN_PARTS}/{name}" for name in plan.names() if name.endswith(RECORD)}
    except OSError:
        return set()


def write_record(folder: WrittenFolder, index: int, names: Iterable[str], plan_sha256: str = "") -> None:
    """Mark a part as complete whose files, by these names, this process wrote.

    Args:
        folder: the folder.
        index: number of the part.
        names: its files.
        plan_sha256: hash of the plan that says what it holds.
    """
    content = json_bytes(sealed({"files": {name: folder.digests[name] for name in names}, "plan": plan_sha256}))
    with writing(folder.path / record_name(index)):
        # Not flushed to disk: if a power failure loses it, the part is scored or measured again.
        folder.write(record_name(index), content, durable=False)


def pending_parts(
    folder: WrittenFolder, parts: Iterable[int], complete: Callable[[int, set[str]], bool], plan_sha256: str = ""
) -> tuple[list[int], list[int]]:
    """Return the numbers of the parts to do, and of those among them that were finished but are damaged now.

    The hashes in the records of undamaged parts are added to `folder.digests`.

    Args:
        folder: the folder.
        parts: numbers of the parts to look at.
        complete: whether some names are those of the files of the part of a number.
        plan_sha256: hash of the plan from which the parts must have been made.
    """
    wanted = list(parts)
    records = recorded(folder)
    with ThreadPoolExecutor(READERS) as pool:  # thousands of files, each of which may be far away
        found = pool.map(lambda index: _stored_files(folder, index, complete, plan_sha256), wanted)
        missing = []
        for index, files in zip(wanted, found, strict=True):
            if files is None:
                missing.append(index)
            else:
                folder.digests |= files
    return missing, [index for index in missing if record_name(index) in records]


def _stored_files(
    folder: WrittenFolder, index: int, complete: Callable[[int, set[str]], bool], plan_sha256: str
) -> dict[str, str] | None:
    """Return the names and hashes of the files of a part; None if it is not complete, damaged or of another plan."""
    try:
        record, sound = read_sealed(folder, record_name(index))
    except ValueError:
        return None
    files = record.get("files")
    if not sound or not isinstance(files, dict) or not complete(index, set(files)):
        return None
    if record.get("plan") != plan_sha256:
        return None
    return files if all(folder.intact(name, sha256) for name, sha256 in files.items()) else None
