"""Keeps in run.json which files the checkpoint was read from, so that no view overwrites one of them.

Files below the parent folder of the run are stored relative to the run: the same commands in two folders write the same
bytes, and a folder that is moved as a whole stays right. All other paths are absolute.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lossprobe.run.latest import RUNS_FOLDER


def stored_inputs(files: Iterable[str], run: Path) -> list[str]:
    """Return paths of files as run.json stores them.

    Args:
        files: absolute paths.
        run: the run's folder.
    """
    # Resolves the folder of a link, but not the link itself, so that both names are protected.
    home = run.resolve()
    around = home.parent.parent if home.parent.name == RUNS_FOLDER else home.parent
    placed = [Path(file).parent.resolve() / Path(file).name for file in files]
    return [os.path.relpath(file, home) if file.is_relative_to(around) else str(file) for file in placed]


def read_inputs(stored: object, run: Path) -> tuple[str, ...]:
    """Return the absolute paths of the files in run.json; an empty tuple if it has none.

    Names that no file can have, which only a damaged run.json has, are left out: there is nothing to protect.

    Args:
        stored: the value in run.json.
        run: the run's folder.
    """
    listed = stored if isinstance(stored, list) else []
    names = [each for each in listed if isinstance(each, str) and _can_be_a_file(each)]
    return tuple(os.path.normpath(run.resolve() / name) for name in names)


def _can_be_a_file(name: str) -> bool:
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
