"""`lossprobe.open_run` and `lossprobe.latest`: stored runs, which stay found when the working folder changes."""

from __future__ import annotations

import os

from lossprobe.arguments import as_path
from lossprobe.errors import UsageError
from lossprobe.run.reader import Run, latest_run
from lossprobe.run.reader import open_run as open_run_at
from lossprobe.run.stored import find_stored
from lossprobe.run.twin import arrived

PathLike = str | os.PathLike[str]


def open_run(path: PathLike) -> Run:
    """Return a complete run; its files are checked before the first query.

    Args:
        path: the folder of the run, such as ".lossprobe/NAME", its address s3://BUCKET/KEY, or the
            short name that `lossprobe runs` lists.

    Raises:
        UsageError: the path is not a run, such as a folder of several runs.
        OutputError: the run is unfinished, damaged, or of another schema version.
    """
    folder = as_path("path", "the folder of a run", path)
    folder = arrived(folder)
    stored = None if folder.exists() else find_stored(str(folder))
    place = stored or folder
    try:
        return open_run_at(place.absolute() if place.exists() else place)
    except UsageError as error:
        if error.id != "run.missing":
            raise
        hint = "lossprobe.latest() opens the latest run; the command `lossprobe runs` lists all"
        raise UsageError(error.id, error.reason, hint=hint, subject=error.subject) from None


def latest(folder: PathLike = ".") -> Run:
    """Return the run that was last made or reused in a working folder.

    Raises:
        UsageError: there is none.
        OutputError: it, or what names it, cannot be read any more.
    """
    return latest_run(as_path("folder", "the path of a working folder", folder).absolute())
