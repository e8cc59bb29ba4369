"""The files that a run's checkpoint was read from, kept in run.json so that no view writes over one of them.

Files in the folder that the run was put into are kept relative to the run, so that the same commands in two folders
write the same bytes, and a folder that is moved as a whole still knows its files; all others are absolute.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lossprobe.run.latest import RUNS_FOLDER


def stored_inputs(files: Iterable[str], run: Path) -> list[str]:
    """Return files as run.json keeps them.

    Args:
        files: absolute paths.
        run: the run's folder.
    """
    # The folders of links are resolved, and the links themselves are not: both names are protected then.
    home = run.resolve()
    around = home.parent.parent if home.parent.name == RUNS_FOLDER else home.parent
    placed = [Path(file).parent.resolve() / Path(file).name for file in files]
    return [os.path.relpath(file, home) if file.is_relative_to(around) else str(file) for file in placed]


def read_inputs(stored: object, run: Path) -> tuple[str, ...]:
    """Return the absolute paths of the files that run.json names; none where it says nothing of them.

    A name that no file can have, as only a damaged run.json has it, is left out: there is nothing to protect.

    Args:
        stored: what run.json holds.
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
