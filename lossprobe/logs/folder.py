"""Finds the log in a folder, such as a trainer's output folder or the newest run of TensorBoard's."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from lossprobe.errors import UsageError
from lossprobe.logs.names import SPLITS
from lossprobe.logs.trainer_state import FILE, STEP_FOLDER
from lossprobe.units import plural, visible

EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)")
NAMES = ("metrics.csv", "trainer_log.jsonl")
ENDINGS = (".log", ".txt", ".jsonl", ".csv", ".json", ".out")
DEEPEST = 4  # folders below the one that is named
SHOWN = 6  # names of a message


@dataclass(frozen=True)
class Found:
    """The files of one log.

    Attributes:
        files: its files, the oldest first, each with what is put before its names.
        note: which of several logs it is, or None.
    """

    files: tuple[tuple[Path, str], ...]
    note: str | None = None


def find_in_folder(folder: Path) -> Found:
    """Return the files of the log in a folder.

    Args:
        folder: a folder with a trainer_state.json or checkpoint-N folders, TensorBoard's event files, a metrics.csv or
            trainer_log.jsonl, or a single other log; they are looked for in this order.

    Raises:
        UsageError: there is none, or several and none of them known by its name.
    """
    if (folder / FILE).is_file():
        return Found(((folder / FILE, ""),))
    try:
        files = _below(folder)
    except OSError as error:
        raise UsageError("log.unreadable", f"{_shown(folder)}: {error.strerror}") from None
    states = {int(step[1]): file for file in files if file.name == FILE and (step := _step(file))}
    if states:
        return Found(((states[max(states)], ""),), _one_of(states[max(states)].parent, len(states), "checkpoint"))
    events = [file for file in files if EVENTS.match(file.name)]
    if events:
        return _newest_events(folder, events)
    for name in NAMES:
        logs = sorted((file for file in files if file.name == name), key=_age)
        if logs:
            return Found(((logs[-1], ""),), _one_of(logs[-1].parent, len(logs), "run"))
    logs = [file for file in files if file.parent == folder and file.suffix in ENDINGS]
    if len(logs) == 1:
        return Found(((logs[0], ""),))
    have = ", ".join(visible(file.name, 40) for file in sorted(logs or files)[:SHOWN]) or "nothing"
    raise UsageError(
        "log.no_files", f"{_shown(folder)}: no log of a known name among {plural(len(files), 'file')} ({have})",
        hint="name the file",
    )  # fmt: skip


def log_beside(checkpoint: Path) -> Path | None:
    """Return the folder in which `find_in_folder` finds the log of the training of a checkpoint, or None.

    The checkpoint's own trainer_state.json says so, or the name of a file in the folder around it.
    """
    if (checkpoint / FILE).is_file():
        return checkpoint.parent if STEP_FOLDER.search(checkpoint.name) else checkpoint
    try:
        beside = os.listdir(checkpoint.parent)  # noqa: PTH208 - names are enough
    except OSError:
        return None
    return checkpoint.parent if any(name in (FILE, *NAMES) or EVENTS.match(name) for name in beside) else None


def _below(folder: Path) -> list[Path]:
    """Return the files of a folder and of those in it, but for hidden ones and what links lead to."""
    found: list[Path] = []
    os.listdir(folder)  # noqa: PTH208 - os.walk is silent where a folder cannot be read
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < DEEPEST and not name.startswith("."))
        found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    return found


def _newest_events(folder: Path, events: list[Path]) -> Found:
    """Return the event files of the newest run; writers in folders such as train/ and eval/ belong to one run."""
    runs: dict[Path, list[Path]] = defaultdict(list)
    for file in events:
        writer = file.parent.name.lower() in SPLITS and file.parent != folder
        runs[file.parent.parent if writer else file.parent].append(file)
    newest = max(runs, key=lambda run: max(map(_age, runs[run])))
    files = sorted(runs[newest], key=_age)
    prefixes = ["" if file.parent == newest else f"{file.parent.name}/" for file in files]
    return Found(tuple(zip(files, prefixes, strict=True)), _one_of(newest, len(runs), "run"))


def _one_of(chosen: Path, count: int, noun: str) -> str | None:
    return None if count == 1 else f"{visible(chosen.name, 60)} is read, the newest of {plural(count, noun)}"


def _step(file: Path) -> re.Match[str] | None:
    return STEP_FOLDER.fullmatch(file.parent.name)


def _age(file: Path) -> float:
    """Return when a file was begun, where its name says, or last written, in seconds."""
    named = EVENTS.match(file.name)
    return float(named[1]) if named else file.stat().st_mtime


def _shown(path: Path) -> str:
    return visible(str(path), 200)
