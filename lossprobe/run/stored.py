"""Lists the runs of a folder and the pairs of them, finds one by a short name, and removes one."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lossprobe.errors import LossprobeError, OutputError, UsageError
from lossprobe.run.files import read_sealed, writing
from lossprobe.run.folder import LINK, Folder
from lossprobe.run.latest import RUNS_FOLDER
from lossprobe.run.locked import HOLDER, LOCK, LockedFolder
from lossprobe.run.manifest import BEGUN
from lossprobe.run.pair import is_pair, pair_folders, read_pair
from lossprobe.run.reader import Run, open_run
from lossprobe.run.run_folders import is_run, run_folders
from lossprobe.run.schema import (
    CHECKED,
    DIVERGENCE,
    DOCUMENTS,
    MANIFEST,
    PAIR,
    PAIR_PLAN,
    PART_TABLES,
    PLAN,
    PLAN_PARTS,
    ROUTING,
    VOCABULARY,
)
from lossprobe.units import visible

# What is removed; run.json or pair.json goes last.
OWN = (CHECKED, PLAN_PARTS, PLAN, *PART_TABLES, ROUTING, DOCUMENTS, VOCABULARY, MANIFEST)
OWN_OF_PAIR = (CHECKED, PLAN_PARTS, PAIR_PLAN, DIVERGENCE, PAIR)
SHORTEST = 4  # characters of a short name
NAMED = 10  # most runs that a message names


@dataclass(frozen=True)
class StoredRun:
    """One run in a folder of runs, or one pair of runs.

    Attributes:
        path: its folder.
        short: the shortest name that no other run there has: the start of the hash at the end of the folder's name,
            or the whole name of the folder.
        run: the opened run; None if it cannot be opened, or is a pair.
        state: "complete", or the last part of the id of the error that opening it raises, such as "unfinished"; of a
            pair "pair" or "unfinished pair".
        changed: time at which it was finished, in UTC; of an unfinished run, the time at which its plan was.
        size: size of its files in bytes.
        labels: the names of `checkpoint` and `text`, of a pair of `first`, `second` and `text`; also of a run that is
            not finished. Empty if no sound file says them.
        pair: the content of the pair.json of a complete pair; else None.
    """

    path: Path
    short: str
    run: Run | None
    state: str
    changed: datetime
    size: int
    labels: dict[str, str]
    pair: dict[str, Any] | None = None


def stored_runs(folder: Path) -> list[StoredRun]:
    """Return the runs of a folder and their pairs, newest first; links are not followed."""
    paths = _folders(folder)
    names = [path.name for path in paths]
    runs = [_stored(path, _short(path.name, names)) for path in paths]
    return sorted(runs, key=lambda run: (-run.changed.timestamp(), run.path.name))


def find_stored(name: str, folder: Path = Path(RUNS_FOLDER)) -> Path | None:
    """Return the path of the run that a short name means; None if there is none.

    Args:
        name: the start of the name of the run's folder, or at least 4 characters of the hash at its end.
        folder: the folder of runs.

    Raises:
        UsageError: the name may mean several runs.
    """
    found = [path for path in _folders(folder) if _means(name, path.name)]
    exact = [path for path in found if path.name == name]
    if len(found) > 1 and not exact:
        raise UsageError(
            "run.ambiguous", f"{visible(name, 100)}: may mean {len(found)} runs: {named(found)}",
            hint="write more of the name; lossprobe runs lists short ones",
        )  # fmt: skip
    chosen = exact or found
    return chosen[0] if chosen else None


def named(paths: Sequence[Path]) -> str:
    """Return the names of at most `NAMED` runs as one text for a message, with "…" if there are more."""
    names = [visible(path.name, 100) for path in paths[:NAMED]]
    return ", ".join([*names, *(["…"] if len(paths) > NAMED else [])])


def remove_run(path: Path) -> None:
    """Remove the files of a run or pair, and its folder if nothing else is in it.

    Raises:
        UsageError: the path is not a run, or is a damaged one outside the working folder's runs.
        OutputError: the path is a link, another process is writing the run, or other files stay in its folder.
    """
    shown = visible(str(path), 200)
    if path.is_symlink():
        raise OutputError("output.link", f"{shown}: {LINK}")
    pair = is_pair(path)
    if not pair and not is_run(path):
        raise UsageError("run.missing", f"{shown}: is no run (no {MANIFEST})")
    try:
        if not pair:
            open_run(path)
    except OutputError as error:
        if error.id == "run.damaged" and path.absolute().parent != Path(RUNS_FOLDER).absolute():
            raise UsageError("run.missing", f"{shown}: is no sound run, so that it is left as it is") from None
    folder = LockedFolder(path)
    try:
        with writing(path):
            for name in OWN_OF_PAIR if pair else OWN:
                folder.remove(name)
            others = [name for name in folder.names() if name not in (LOCK, HOLDER)]
    finally:
        folder.unlock(remove=not os.path.lexists(path / (PAIR if pair else MANIFEST)))
    if others:
        raise OutputError("output.write", f"{shown}: the run is removed, other files stay: {visible(others[0], 80)}")


def _folders(folder: Path) -> list[Path]:
    return sorted([*run_folders(folder), *pair_folders(folder)])


def _means(name: str, folder: str) -> bool:
    return folder.startswith(name) or (len(name) >= SHORTEST and _hash(folder).startswith(name))


def _hash(folder: str) -> str:
    return folder.rpartition("-")[2] if "-" in folder else ""


def _short(folder: str, folders: Sequence[str]) -> str:
    tail = _hash(folder)
    for length in range(SHORTEST, len(tail) + 1):
        if sum(_means(tail[:length], other) for other in folders) == 1:
            return tail[:length]
    return folder


def _stored(path: Path, short: str) -> StoredRun:
    run, pair, state = None, None, "complete"
    try:
        if is_pair(path):
            pair = read_pair(path) if os.path.lexists(path / PAIR) else None
            state = "unfinished pair" if pair is None else "pair"
        else:
            run = open_run(path)
    except LossprobeError as error:
        state = error.id.partition(".")[2]
    found = [_stat(file) for file in path.rglob("*")]
    size = sum(each.st_size for each in found if each is not None and stat.S_ISREG(each.st_mode))
    marks = tuple(map(_stat, (path / MANIFEST, path / PAIR, path / PLAN, path / PAIR_PLAN, path)))
    mark = next((each.st_mtime for each in marks if each is not None), 0.0)
    changed = datetime.fromtimestamp(mark, tz=UTC)
    labels = _labels(path) if run is None else run.manifest["labels"]
    return StoredRun(path, short, run, state, changed, size, labels, pair)


def _labels(path: Path) -> dict[str, str]:
    """Return the names in the first sound file of a run or pair that has them; empty without one."""
    with contextlib.suppress(OSError), Folder.open(path, follow=False) as folder:
        for name in (MANIFEST, PLAN, BEGUN, PAIR, PAIR_PLAN):
            with contextlib.suppress(ValueError):
                content, sound = read_sealed(folder, name)
                labels = content.get("labels")
                if sound and isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values()):
                    return labels
    return {}


def _stat(path: Path) -> os.stat_result | None:
    """Return what the system says of a path, of a link itself; None for a file that its writer has just removed."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
