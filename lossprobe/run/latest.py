"""Finds the folder of runs in a working folder, and remembers the latest run and the last compared pair."""

from __future__ import annotations

import os
from pathlib import Path

from lossprobe.errors import OutputError, UsageError
from lossprobe.run.files import writing
from lossprobe.run.folder import LINK, Folder, NotFollowedError
from lossprobe.units import visible

RUNS_FOLDER = ".lossprobe"
LATEST = "latest"
PAIR = "pair"  # the runs that `compare` compared last
IGNORED = ".gitignore"
LONGEST = 1 << 16  # bytes; no system takes a longer path


def runs_folder() -> Path:
    """Return the folder of runs of the working folder.

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
    _write(runs, LATEST, os.fsencode(path))


def write_pair(runs: Path, pair: tuple[Path, Path]) -> None:
    """Make two runs the pair of a folder of runs that `compare` takes by default.

    Raises:
        OutputError: it cannot be written, or the folder is a link.
    """
    _write(runs, PAIR, b"\0".join(map(os.fsencode, pair)))


def _write(runs: Path, name: str, content: bytes) -> None:
    with writing(runs / name):
        runs.mkdir(parents=True, exist_ok=True)
        with Folder.open(runs, follow=False) as folder:
            if folder.stat(IGNORED) is None:  # runs contain the text, so git ignores them unless someone adds them
                folder.write(IGNORED, b"*\n")
            folder.sweep(name)
            folder.write(name, content + b"\n")


def latest_path(runs: Path) -> str:
    """Return the path of the latest run of a folder of runs, as it was written.

    Raises:
        UsageError: there is none.
        OutputError: the file that names it is a link or damaged.
    """
    none = UsageError(
        "run.none",
        f"no run in this folder yet (no {RUNS_FOLDER}/{LATEST})",
        hint="score first: lossprobe score CHECKPOINT TEXT",
    )
    return _paths(runs, LATEST, 1, none)[0]


def latest_of(runs: Path) -> Path | None:
    """Return the absolute path of the latest run of the working folder's runs; None where there is none."""
    try:
        return Path(latest_path(runs)).absolute()
    except (OutputError, UsageError):
        return None


def last_pair(runs: Path) -> list[Path]:
    """Return the two runs that were compared last.

    Raises:
        UsageError: no two were compared in this folder yet.
        OutputError: the file that names them is a link or damaged.
    """
    none = UsageError(
        "compare.sources", "no models were compared in this folder yet", hint="compare RUN RUN, or A B TEXT"
    )
    return [Path(path) for path in _paths(runs, PAIR, 2, none)]


def _paths(runs: Path, name: str, count: int, none: UsageError) -> list[str]:
    """Return the paths in a file beside the runs; raise `none` without such a file."""
    shown = visible(str(runs / name), 200)
    hint = "name a run, or score again"
    if runs.is_symlink():
        raise OutputError("output.link", f"{visible(str(runs), 200)}: {LINK}", hint=hint)
    try:
        with Folder.open(runs, follow=False) as folder, folder.open_file(name) as stream:
            data = stream.read(LONGEST)
    except FileNotFoundError:
        raise none from None
    except NotFollowedError as error:
        if not runs.is_dir():
            raise none from None
        raise OutputError("run.damaged", f"{shown}: {error.strerror}", hint=hint) from None
    except OSError as error:
        raise OutputError("run.damaged", f"{shown}: cannot be read: {error.strerror}", hint=hint) from None
    paths = os.fsdecode(data.removesuffix(b"\n")).split("\0")
    if not all(paths) or len(paths) != count or len(data) == LONGEST:
        raise OutputError("run.damaged", f"{shown}: is damaged: {len(data):,} bytes that are no path", hint=hint)
    return paths
