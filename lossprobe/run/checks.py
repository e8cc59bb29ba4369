"""Checks before the first query that the files of a run are as they were written; repeats it only after a change.

Each file must be a regular file reached without a link, have the sha256 in run.json and the columns, types and rows of
a run, and have no value outside its range.

A check that passed is noted in the run's folder with a hash of every file's size, times and inode. A later view
compares only these. A copied run, a changed time or another version of lossprobe is checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lossprobe import __version__
from lossprobe.run.files import sha256_of_json, sha256_of_stream
from lossprobe.run.folder import Folder
from lossprobe.run.manifest import damaged, part_names
from lossprobe.run.opened import telling_removed
from lossprobe.run.schema import ALL_TABLES, CHECKED, DIVERGENCE, MANIFEST, PART_TABLES, ROUTING
from lossprobe.run.settings import read_run_settings
from lossprobe.units import format_count, visible

Found = TypeVar("Found")
# A file can change without a new time while the clock has not ticked: one that is younger than this is looked at again.
SETTLED_NS = 2_000_000_000
IN_PARTS = (*PART_TABLES, ROUTING, DIVERGENCE)


@dataclass(frozen=True)
class FileChecks:
    """Checks the files of one run, or of one pair of runs.

    Attributes:
        path: its folder.
        manifest: the content of its run.json, or pair.json.
        sealed: whether that has a hash of itself; without it, bytes and values are not checked.
        name: the name of that file.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    sealed: bool
    name: str = MANIFEST

    def check(self) -> None:
        """Check the files, and note that they passed.

        Raises:
            OutputError: a file is missing, damaged or not what a run holds, or the run was removed or replaced.
        """
        with self._opened(), Folder.open(self.path) as folder:
            state, newest = self._state(folder)
            started = time.time_ns()
            if _remembered(folder) == state:
                return
            self._check_files(folder)
            if newest < started - SETTLED_NS:
                with contextlib.suppress(OSError):  # a folder that cannot be written: the files are checked each time
                    folder.write(CHECKED, state, durable=False)

    def damaged_files(self) -> list[str]:
        """Return the names of the files that are missing or whose sha256 is not the one that the manifest states."""
        stated = self.manifest["files"]
        with self._opened(), Folder.open(self.path) as folder:
            found = _of_all(lambda name: _sha256(folder, name), list(stated))
            return [name for name, digest in zip(stated, found, strict=True) if digest != stated[name]]

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with telling_removed(self.path, self.manifest, self.name), self._reading():
            yield

    @contextmanager
    def _reading(self, name: str = "") -> Iterator[None]:
        """Turn an error of the operating system about a file or the run's folder into one that names the run."""
        try:
            yield
        except FileNotFoundError:
            raise damaged(self.path, f"{name or 'its folder'} is missing") from None
        except OSError as error:
            inner = "" if error.filename is None else f"{visible(str(error.filename), 80)} "
            raise damaged(self.path, f"cannot be read: {name and f'{name}: '}{inner}{error.strerror}") from None

    def _state(self, folder: Folder) -> tuple[bytes, int]:
        """Return a hash of size, times and inode of all files, and the latest time in nanoseconds."""
        digest, newest = hashlib.sha256(f"{__version__} {sha256_of_json(self.manifest)}\n".encode()), 0
        for table in self._tables():
            names = part_names(self.manifest["files"], table)
            with self._reading(names[0]), self._place_of(folder, table) as place:
                for name in names:
                    with self._reading(name):
                        found = place.regular(name.rpartition("/")[2])
                    times = (found.st_mtime_ns, found.st_ctime_ns)
                    digest.update(f"{name} {found.st_size} {times} {found.st_ino}\n".encode())
                    newest = max(newest, *times)
        return f"{digest.hexdigest()}\n".encode(), newest

    @staticmethod
    def _place_of(folder: Folder, table: str) -> contextlib.AbstractContextManager[Folder]:
        """Return the folder that holds the files of a table."""
        return folder.folder(table) if table in IN_PARTS else contextlib.nullcontext(folder)

    def _check_files(self, folder: Folder) -> None:
        for table in self._tables():
            names = part_names(self.manifest["files"], table)
            rows = _of_all(partial(self._rows_of, folder, table), names)
            stated = self._stated_rows(table, len(names))
            for name, found, expected in zip(names, rows, stated, strict=True):
                if expected is not None and found != expected:
                    what = f"{name} holds {format_count(found)} rows, {self.name} says {format_count(expected)}"
                    raise damaged(self.path, what)
            total = self.manifest["counts"]["tokens"]
            if table == "tokens" and sum(rows) != total:
                what = f"tokens holds {format_count(sum(rows))} rows, {self.name} says {format_count(total)}"
                raise damaged(self.path, what)

    def _tables(self) -> list[str]:
        """Return the tables that the run or pair has."""
        return [table for table in (*ALL_TABLES, DIVERGENCE) if part_names(self.manifest["files"], table)]

    def _stated_rows(self, table: str, count: int) -> list[int | None]:
        """Return the number of rows of each file of a table, if the manifest has it."""
        if table in ("tokens", DIVERGENCE):
            return list(self.manifest.get("part_rows", [None] * count))
        if table == "documents":
            return [self.manifest["counts"]["documents"]]
        if table == "vocabulary" and self.sealed:
            return [self._vocab_size()]
        return [None] * count

    def _vocab_size(self) -> int:
        return read_run_settings(self.manifest["settings"]).checkpoint.vocab_size

    def _rows_of(self, folder: Folder, table: str, name: str) -> int:
        """Check bytes, columns and values of a file, and return its number of rows."""
        from lossprobe.run.footers import read_footer, values_fault  # needed once for a run, not for each view

        with self._reading(name), folder.open_file(name) as stream:
            if self.sealed and sha256_of_stream(stream) != self.manifest["files"][name]:
                wrong = f"{name} is damaged (its sha256 is not the one in {self.name})"
                raise damaged(self.path, f"cannot be read: {wrong}")
            try:
                footer = read_footer(stream, table)
            except ValueError as error:
                raise damaged(self.path, f"cannot be read: {name}: {error}") from None
        documents = self.manifest["counts"]["documents"]
        fault = values_fault(footer, table, documents, self._vocab_size()) if self.sealed else None
        if fault is not None:
            raise damaged(self.path, f"{name}: {fault}")
        return int(footer.num_rows)


def _of_all(look: Callable[[str], Found], names: list[str]) -> list[Found]:
    """Return what a function finds in each file, in order; several files are looked at in threads."""
    if len(names) < 2:  # as in most tables; to start a thread takes longer than to look at a small file
        return [look(name) for name in names]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, names))


def _remembered(folder: Folder) -> bytes | None:
    try:
        with folder.open_file(CHECKED) as stream:
            return stream.read(100)
    except OSError:
        return None


def _sha256(folder: Folder, name: str) -> str | None:
    try:
        with folder.open_file(name) as stream:
            return sha256_of_stream(stream)
    except OSError:
        return None
