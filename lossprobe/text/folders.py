"""Which files of a folder of texts are read: links, hidden files, and `include` and `exclude`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from lossprobe.errors import UsageError
from lossprobe.text.selection import Selection
from lossprobe.units import format_count, plural, visible

# Notices about entries of a folder of texts; the path comes first.
OUTSIDE = "leads out of the folder and is not followed; `follow_links` follows it"
FOLLOWED = "leads out of the folder and was followed"
INSIDE = "is a link to a folder that is read already, and is skipped"
BROKEN = "is a broken link, and is skipped"
SPECIAL = "is not a regular file, and is skipped"


def files_of_folder(folder: Path, selection: Selection, *, follow_links: bool, notices: list[str]) -> list[Path]:
    """Return the files of a folder that are read, sorted.

    Args:
        folder: the folder, or a link to it.
        selection: which of its files are read.
        follow_links: follow links out of the folder.
        notices: gets one line for each kind of thing that is left out, or followed.

    Raises:
        UsageError: no file is left.
        OSError: a folder below cannot be listed.
    """
    shown = visible(str(folder), 200)
    files, remarks = _files_below(folder, follow_links=follow_links)
    if not files:
        text = f"{shown}: the folder holds no files"
        raise UsageError("text.empty_folder", f"{text} ({remarks[0]})" if remarks else text)
    notices += remarks
    chosen = [file for file in files if selection.takes(file.relative_to(folder))]
    if not chosen:
        first = visible(str(files[0].relative_to(folder)), 80)
        raise UsageError(
            "text.empty_folder",
            f"{shown}: `include` and `exclude` leave none of {plural(len(files), 'file')} (the first: {first})",
        )
    if len(chosen) < len(files):
        left = f"{format_count(len(files) - len(chosen))} of {plural(len(files), 'file')}"
        notices.append(f"{shown}: {left} left out by `include` and `exclude`")
    return chosen


def _files_below(folder: Path, *, follow_links: bool) -> tuple[list[Path], list[str]]:
    """Return every file below a folder, sorted, and one line for each kind of entry that was skipped or followed.

    Hidden files and folders are skipped without a line. A link inside the folder is followed; one that leads out of it
    only if `follow_links`. Each folder is read once, however many links lead to it.

    Args:
        folder: the folder, or a link to it.
        follow_links: follow links that lead out of the folder.

    Raises:
        OSError: a folder below cannot be listed.
    """
    walk = _Walk(_real(folder), follow_links)
    walk.visit(folder)
    remarks = []
    for what, places in walk.remarks.items():
        others = f" (and {plural(len(places) - 1, 'other')})" if len(places) > 1 else ""
        remarks.append(f"{visible(str(min(places)), 200)}{others}: {what}")
    return sorted(walk.files), remarks


class _Walk:
    """A walk over a folder of texts.

    Attributes:
        files: the files found.
        remarks: notice, such as `BROKEN` → the paths that it is about.
    """

    def __init__(self, top: Path, follow_links: bool) -> None:
        self._top = top
        self._follow_links = follow_links
        self._read: set[Path] = set()
        self.files: list[Path] = []
        self.remarks: dict[str, list[Path]] = {}

    def visit(self, start: Path) -> None:
        """Add the files below a folder. Links to folders come last, so that each folder is read under its own path."""
        links = []
        for root, folders, names in os.walk(start, onerror=_refuse):
            self._read.add(_real(Path(root)))
            visible_ones = [Path(root, name) for name in folders if not name.startswith(".")]
            links += [path for path in visible_ones if path.is_symlink()]
            folders[:] = [path.name for path in visible_ones if _real(path) not in self._read]
            for name in names:
                if not name.startswith("."):
                    self._add(Path(root, name))
        for link in sorted(links):
            self._follow(link)

    def _add(self, file: Path) -> None:
        if file.is_symlink() and not self._may_follow(file):
            return
        if not file.exists():
            self._remark(BROKEN, file)
        elif not file.is_file():
            self._remark(SPECIAL, file)
        else:
            self.files.append(file)

    def _follow(self, link: Path) -> None:
        target = _real(link)
        if target in self._read:
            self._remark(INSIDE, link)
        elif self._may_follow(link):
            self.visit(link)

    def _may_follow(self, link: Path) -> bool:
        if _real(link).is_relative_to(self._top):
            return True
        self._remark(FOLLOWED if self._follow_links else OUTSIDE, link)
        return self._follow_links

    def _remark(self, what: str, path: Path) -> None:
        self.remarks.setdefault(what, []).append(path)


def _real(path: Path) -> Path:
    """Return a path with all links resolved; unlike `Path.resolve` it allows a link that leads to itself."""
    return Path(os.path.realpath(path))


def _refuse(error: OSError) -> NoReturn:
    raise error
