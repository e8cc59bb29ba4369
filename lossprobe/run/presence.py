"""Confirms that what was written is still there: a run may be removed, replaced or emptied while it is scored.

A folder that was opened can be written although nothing has its path any more, and object storage takes the last parts
of a run whose first ones were deleted. Without a look at the end, such a run would be reported as stored. The look is
at names and sizes; the bytes are compared with their hashes before the run is first read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from lossprobe.errors import OutputError
from lossprobe.run.files import read_sealed
from lossprobe.run.folder import Folder
from lossprobe.run.identity import Settings
from lossprobe.run.manifest import START_OVER
from lossprobe.run.schema import DOCUMENTS, PLAN, VOCABULARY
from lossprobe.units import plural

NO_FOLDER = "its folder is no longer there"
AGAIN = "repeat the command to score what is lost"


class Place(Protocol):
    """Where the files of a run are kept."""

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Return the sizes in bytes of those of some files that are there."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a small file.

        Raises:
            OSError: there is none.
        """


class FolderPlace:
    """A folder, as the one that was opened and as its path now has it.

    Args:
        folder: the opened folder.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Return what `Place` says, of the folder that was opened."""
        found = {}
        for name in names:
            with contextlib.suppress(OSError):
                found[name] = self._folder.regular(name).st_size
        return found

    def read(self, name: str) -> bytes:
        """Return the bytes of a file that the path of the folder leads to now; its errors are those of `Folder`."""
        with Folder.open(self._folder.path, follow=False) as now:
            return now.read(name)


def stands(folder: Folder) -> bool:
    """Return whether the path of an open folder still leads to it."""
    try:
        found = folder.path.lstat()
    except OSError:
        return False
    return folder.handle is None or os.path.samestat(found, os.fstat(folder.handle))


def gone(shown: str, what: str, hint: str = AGAIN) -> OutputError:
    """Return the error for a run or pair that was removed or replaced.

    Args:
        shown: where it is, for the message.
        what: by what this is known.
        hint: what to do.
    """
    return OutputError("output.gone", f"{shown}: was removed or replaced while it was written: {what}", hint=hint)


def hint_for(place: Place, name: str) -> str:
    """Return what to do about a lost file: a part is scored again, what planning wrote is not while its plan is there.

    Args:
        place: where the run is kept.
        name: the file.
    """
    planned = name in (DOCUMENTS, VOCABULARY) and PLAN in place.sizes([PLAN])
    return START_OVER if planned else AGAIN


def lost_file(place: Place, names: Collection[str], written: Mapping[str, int]) -> tuple[str, str] | None:
    """Return the first of some files that is not there as it was written, and what is wrong; None if all are there.

    Args:
        place: where they are kept.
        names: the files.
        written: their sizes in bytes, as far as they are known; of the others, none is empty.

    Raises:
        OutputError: the place cannot be asked.
    """
    there = place.sizes(names)
    for name in names:
        if name not in there:
            return name, f"{name} is missing"
        if not there[name] or there[name] != written.get(name, there[name]):
            count = f", {written[name]:,} were written" if name in written else ""
            return name, f"{name} holds {plural(there[name], 'byte')}{count}"
    return None


def confirm_files(place: Place, shown: str, names: Collection[str], written: Mapping[str, int]) -> None:
    """Refuse a run of which a file is not there any more, or has another size.

    Args:
        place: where it is kept.
        shown: where that is, for the message.
        names: its files.
        written: as of `lost_file`.

    Raises:
        OutputError: one of them is not there as it was written, or the place cannot be asked.
    """
    lost = lost_file(place, names, written)
    if lost is not None:
        raise gone(shown, lost[1], hint_for(place, lost[0]))


def content_at(place: Place, name: str) -> dict[str, Any]:
    """Return the content of a sound file of a run; empty if there is none."""
    try:
        content, sound = read_sealed(place, name)
    except ValueError:
        return {}
    return content if sound else {}


def confirm_settings(place: Place, shown: str, name: str, settings: Settings) -> None:
    """Refuse a run whose last file is not there any more, or is that of another run.

    Args:
        place: where it is kept.
        shown: where that is, for the message.
        name: run.json or pair.json.
        settings: those of the run or pair.

    Raises:
        OutputError: it is, or the place cannot be asked.
    """
    if content_at(place, name).get("settings") != settings:
        raise gone(shown, f"{name} is missing, or another one")
