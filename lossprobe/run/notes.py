"""Notes of a working folder: answers to questions that take long, such as the facts of a checkpoint.

A note is `.lossprobe/known/SHA256.json`, with the sha256 of the question as its name. It is only a shortcut: a missing
or damaged note, or one in a folder that is a link, is ignored, and if none can be written the work is done each time.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.files import read_sealed, sealed, sha256_of_json, write_json
from lossprobe.run.folder import Folder
from lossprobe.run.latest import RUNS_FOLDER

KNOWN = "known"


def read_note(asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the note that answers a question; None if it is missing or damaged."""
    try:
        with Folder.open(Path(RUNS_FOLDER), follow=False) as runs, runs.folder(KNOWN) as folder:
            note, sound = read_sealed(folder, f"{sha256_of_json(asked)}.json")
    except (OSError, ValueError):
        return None
    return note if sound else None


def write_note(asked: dict[str, Any], note: dict[str, Any]) -> None:
    """Write the answer of a question, replacing an earlier one."""
    folder = Path(RUNS_FOLDER, KNOWN)
    with contextlib.suppress(OSError, OutputError):
        if not Path(RUNS_FOLDER).is_symlink() and not folder.is_symlink():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"{sha256_of_json(asked)}.json", sealed(note))
