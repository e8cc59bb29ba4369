"""Where the runs of a working folder are, and which of them is the latest."""

from __future__ import annotations

import os
from pathlib import Path

from lossprobe.errors import OutputError, UsageError
from lossprobe.run.files import writing
from lossprobe.run.folder import LINK, Folder, NotFollowedError
from lossprobe.units import visible

RUNS_FOLDER = ".lossprobe"
LATEST = "latest"
IGNORED = ".gitignore"
LONGEST = 1 << 16  # bytes; no system takes a longer path


def runs_folder() -> Path:
    """Return where the runs of the working folder are.

    Raises:
        OutputError: it is a link.
    """
    folder = Path(RUNS_FOLDER)
    if folder.is_symlink():
        raise OutputError("output.link", f"{RUNS_FOLDER}: {LINK}")
    return folder


def write_latest(runs: Path, path: Path) -> None:
    """Make a run the latest one of a folder of runs.

    Raises:
        OutputError: it cannot be written, or the folder is a link.
    """
    with writing(runs / LATEST):
        runs.mkdir(parents=True, exist_ok=True)
        with Folder.open(runs, follow=False) as folder:
            if folder.stat(IGNORED) is None:  # runs hold the text: none is for a commit unless someone wants it there
                folder.write(IGNORED, b"*\n")
            folder.sweep(LATEST)
            folder.write(LATEST, os.fsencode(path) + b"\n")


def latest_path(runs: Path) -> str:
    """Return what the latest run is called in the working folder of some runs."""
    shown = visible(str(runs / LATEST), 200)
    none = UsageError(
        "run.none",
        f"no run in this folder yet (no {RUNS_FOLDER}/{LATEST})",
        hint="score first: lossprobe score CHECKPOINT TEXT",
    )
    hint = "name a run, or score again"
    if runs.is_symlink():
        raise OutputError("output.link", f"{visible(str(runs), 200)}: {LINK}", hint=hint)
    try:
        with Folder.open(runs, follow=False) as folder, folder.open_file(LATEST) as stream:
            data = stream.read(LONGEST)
    except FileNotFoundError:
        raise none from None
    except NotFollowedError as error:
        if not runs.is_dir():
            raise none from None
        raise OutputError("run.damaged", f"{shown}: {error.strerror}", hint=hint) from None
    except OSError as error:
        raise OutputError("run.damaged", f"{shown}: cannot be read: {error.strerror}", hint=hint) from None
    path = os.fsdecode(data.removesuffix(b"\n"))
    if not path or "\0" in path or len(data) == LONGEST:
        raise OutputError("run.damaged", f"{shown}: is damaged: {len(data):,} bytes that are no path", hint=hint)
    return path
