"""Tells a run that was removed or replaced after it was opened from one that is damaged.

A command that scores several models keeps the first run open while the next one is scored, which may take hours. What
mends a damaged run, to check it or to overwrite it, does not mend one that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.files import read_sealed
from lossprobe.run.folder import Folder
from lossprobe.run.schema import MANIFEST
from lossprobe.run.shown import shown_run

REPEAT = "repeat the command, which scores what is lost if it names the checkpoint and the text"


@contextmanager
def telling_removed(path: Path, manifest: dict[str, Any], name: str = MANIFEST) -> Iterator[None]:
    """Turn the error for a damaged run into one that says that it was removed or replaced, where it was.

    Args:
        path: the folder of the run, or pair.
        manifest: the content of its run.json, or pair.json, when it was opened.
        name: the name of that file.

    Raises:
        OutputError: in place of another one, the run was removed or replaced.
    """
    try:
        yield
    except OutputError as error:
        lost = _lost(path, manifest, name) if error.id == "run.damaged" else None
        if lost is None:
            raise
        what = f"{shown_run(path)}: was removed or replaced after it was opened: {lost}"
        raise OutputError("run.gone", what, hint=REPEAT) from None


def _lost(path: Path, manifest: dict[str, Any], name: str) -> str | None:
    """Return by what it is known that a folder has no longer what was opened; None if it has."""
    try:
        with Folder.open(path) as folder:
            if folder.stat(name) is None:
                return f"{name} is missing"
            now, _ = read_sealed(folder, name)
    except OSError:
        return "its folder is no longer there"
    except ValueError:
        now = {}
    # Not compared as they are: a forged file may hold NaN, which equals nothing.
    same = json.dumps(now, sort_keys=True) == json.dumps(manifest, sort_keys=True)
    return None if same else f"{name} is another one"
