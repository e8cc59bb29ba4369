"""Which files of a folder of texts are read: `include` and `exclude`."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath


@dataclass(frozen=True)
class Selection:
    """Patterns of files, as shells have them: `*`, `?` and `[…]`, where `*` also crosses folders.

    A pattern matches a file by its name, by its path below the folder of texts, or by a folder that it lies in.

    Attributes:
        include: a file is read only if one of them matches; none for all files.
        exclude: a file is not read if one of them matches.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: PurePath) -> bool:
        """Return whether a file is read.

        Args:
            path: where it lies, relative to the folder of texts.

        >>> Selection(exclude=("drafts", "*.log")).takes(PurePath("drafts/a.txt"))
        False
        >>> Selection(include=("*.md",)).takes(PurePath("notes/a.md"))
        True
        """
        if self.include and not any(_matches(path, pattern) for pattern in self.include):
            return False
        return not any(_matches(path, pattern) for pattern in self.exclude)


def _matches(path: PurePath, pattern: str) -> bool:
    places = [path, *path.parents][:-1]  # without the folder of texts itself
    wanted = pattern.rstrip("/")
    return any(fnmatchcase(name, wanted) for place in places for name in (place.name, place.as_posix()))
