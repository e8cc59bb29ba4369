"""Which folders are runs, complete or not."""

from __future__ import annotations

import os
from pathlib import Path

from lossprobe.errors import UsageError
from lossprobe.objects.folder import address_of_copy
from lossprobe.run.folder import folders_inside
from lossprobe.run.manifest import BEGUN
from lossprobe.run.schema import MANIFEST, PAIR, PAIR_PLAN, PLAN
from lossprobe.units import plural, visible


def is_run(path: Path) -> bool:
    """Return whether a path is a run directory, complete or not, sound or damaged."""
    return path.is_dir() and any(os.path.lexists(path / name) for name in (MANIFEST, PLAN, BEGUN))


def run_folders(folder: Path) -> list[Path]:
    """Return the runs directly inside a folder, sorted by path; empty if the folder is a link or cannot be read."""
    return folders_inside(folder, is_run)


def no_run(path: Path, shown: str) -> UsageError:
    """Return the error for a path that is no run, with what it is instead."""
    if any(os.path.lexists(path / name) for name in (PAIR, PAIR_PLAN)):
        return UsageError("run.missing", f"{shown}: is a pair of runs", hint="lossprobe compare --kl RUN RUN shows it")
    if held := run_folders(path):
        held_runs = f"{plural(len(held), 'run')}: {visible(', '.join(each.name for each in held), 400)}"
        return UsageError("run.several", f"{shown}: holds {held_runs}", hint="name one of them")
    there = "a checkpoint needs a text after it, and a text its checkpoint before it"
    here = os.path.lexists(path) and address_of_copy(path) is None  # the folder of an address may be empty
    hint = there if here else "nothing is there; lossprobe runs lists the runs of this folder"
    return UsageError("run.missing", f"{shown}: is no run (no {MANIFEST})", hint=hint)
