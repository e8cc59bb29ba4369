"""The blocks of a plan that several processes make together.

    RUN/plan/begun                            the settings of the run that is planned, and what was measured
    RUN/plan/.block-00003                     the lock of who plans block 3
    RUN/plan/block-00003-part-00000.parquet … the rows of its parts, numbered within the block
    RUN/plan/block-00003-documents.parquet    its documents
    RUN/plan/block-00003                      what was counted, and the sha256 of its files; written last

When all blocks are there, one process gives the parts their numbers in the run, joins the documents, and writes
plan.json. A process that is killed at any point leaves whole blocks, which the next one takes as they are.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pyarrow.parquet as pq

from lossprobe.errors import OutputError
from lossprobe.plan.rows import Rows
from lossprobe.run.document_table import DocumentsTable
from lossprobe.run.files import json_bytes, read_sealed, sealed, writing
from lossprobe.run.folder import Folder
from lossprobe.run.manifest import BEGUN, START_OVER, damaged, part_name
from lossprobe.run.new_file import NewFile
from lossprobe.run.part_values import write_planned
from lossprobe.run.schema import PLAN, PLAN_PARTS
from lossprobe.run.shard_locks import take_lock
from lossprobe.run.shown import shown_run
from lossprobe.run.written import WrittenFolder
from lossprobe.units import plural

BLOCK = "block-"
# What a record holds beside its own hash; another file that has one is none.
RECORDED = {"part_rows", "windows", "tally", "text_sha256", "settings_sha256", "files"}
READERS = 8  # files read at once
RECORD = re.compile(rf"{BLOCK}[0-9]{{5,}}")
LONGEST_PAUSE = 4.0  # seconds between two looks at what another process plans; a thousand may wait for it


def begun(folder: Folder) -> bool:
    """Return whether a plan was begun by several processes and is not complete."""
    try:
        folder.regular(BEGUN)
    except OSError:
        return False
    return True


def kept_plan(folder: Folder, *, blocks: bool) -> str:
    """Return which of a plan stays for the next call, in words: all of it, or blocks of it if it can go on with these.

    Args:
        folder: the folder of the run.
        blocks: whether the next call goes on with blocks.
    """
    if folder.stat(PLAN) is not None:
        return "the plan is kept"
    return "planned blocks are kept" if blocks and begun(folder) and _recorded(folder) else ""


class PlanBlocks:
    """The blocks of the plan of one run.

    Args:
        folder: the folder of the run.
    """

    def __init__(self, folder: WrittenFolder) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def claim(self, block: int) -> Iterator[bool]:
        """Yield whether this process may plan a block, until the `with` block ends: no other process plans it.

        Raises:
            OutputError: the lock cannot be written.
        """
        with writing(self._folder.path):
            lock = take_lock(self._folder, f".{BLOCK}{block:05d}")
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def wait(self, block: int, tell: Callable[[], None]) -> dict[str, Any] | None:
        """Wait as long as another process plans a block, and return what `stored` does then.

        `tell` is called if it is waited for.
        """
        pause = 0.02
        while (content := self.stored(block)) is None and not self.joined():
            with self.claim(block) as free:
                if free:
                    return self.stored(block)
            tell()
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
        return content

    def write_part(self, block: int, index: int, rows: Rows) -> None:
        """Store the rows of a part of a block."""
        write_planned(self._folder, _part(block, index), rows)

    def documents(self, block: int) -> AbstractContextManager[NewFile]:
        """Return a context manager that yields the new file of the documents of a block."""
        return self._folder.target(_documents(block))

    def finish(self, block: int, parts: int, content: dict[str, Any]) -> None:
        """Mark a block as complete.

        Args:
            block: its number.
            parts: number of its parts.
            content: what was counted, for JSON.
        """
        names = [_documents(block), *(_part(block, index) for index in range(parts))]
        digests = {name: self._folder.digests[name] for name in names}
        with writing(self._folder.path / _record(block)):
            self._folder.write(_record(block), json_bytes(sealed({**content, "files": digests})))

    def stored(self, block: int) -> dict[str, Any] | None:
        """Return what was counted of a block, with the hashes of its `files`; None if it is not complete."""
        try:
            content, sound = read_sealed(self._folder, _record(block))
        except ValueError:
            return None
        return content if sound and content.keys() == RECORDED else None

    def left_damaged(self, block: int) -> bool:
        """Return whether the record of a block that is not stored is there; nobody else plans it meanwhile."""
        with self._folder.folder(PLAN_PARTS) as plan:
            return plan.stat(_inner(_record(block))) is not None

    def planned_again(self, blocks: int) -> str:
        """Return a notice that some blocks are planned again."""
        what = "damaged or of another run, and planned again"
        return f"{shown_run(self._folder.path)}: {plural(blocks, 'planned block')} {what}"

    def forget_lost(self, ends: Sequence[str], settings_sha256: str) -> int:
        """Remove the records of blocks that have to be planned again, and return how many blocks these are.

        Their record or another file of theirs is missing or damaged, or they were planned from another text or with
        other settings. The caller holds the lock of the folder, so that nobody joins them.

        Args:
            ends: hash of the text at the end of each block.
            settings_sha256: hash of the identity of the run.

        Raises:
            OutputError: a record cannot be removed.
        """
        lost = parts = 0
        with writing(self._folder.path), self._folder.folder(PLAN_PARTS) as plan:
            for block, text_sha256 in enumerate(ends):
                content = self.stored(block)
                if content is None:  # nothing to forget, and who plans it may write its record at this moment
                    lost += 1
                    continue
                made_of = (content["text_sha256"], content["settings_sha256"])
                if made_of != (text_sha256, settings_sha256) or not self._whole(plan, block, parts, content):
                    plan.remove(_inner(_record(block)))
                    lost += 1
                parts += len(content["part_rows"])
        return lost

    def _whole(self, plan: Folder, block: int, first: int, content: dict[str, Any]) -> bool:
        """Return whether the files of a block are those that were written.

        Args:
            plan: the folder of the plan.
            block: its number.
            first: number in the run of its first part, under which a part lies if a process was killed that joined it.
            content: what `stored` returned.
        """
        digests = dict(content["files"])
        for index in range(len(content["part_rows"])):
            if plan.stat(_inner(_part(block, index))) is None:
                digests[part_name(PLAN_PARTS, first + index)] = digests.pop(_part(block, index))
        with ThreadPoolExecutor(READERS) as pool:
            return all(pool.map(self._folder.intact, digests, digests.values()))

    def join(self, count: int, table: DocumentsTable) -> list[dict[str, Any]]:
        """Make the parts and the documents of all blocks those of the run, and return what was stored of each block.

        Args:
            count: number of blocks.
            table: gets the documents.

        Raises:
            OutputError: a file of a block is missing, or the folder cannot be written.
        """
        joined: list[dict[str, Any]] = []
        parts = 0
        with writing(self._folder.path), self._folder.folder(PLAN_PARTS) as plan:
            for block in range(count):
                content = self.stored(block)
                if content is None:
                    raise self._damaged(_record(block))
                for index in range(len(content["part_rows"])):
                    name = part_name(PLAN_PARTS, parts)
                    self._folder.digests[name] = content["files"][_part(block, index)]
                    if not _renamed(plan, _part(block, index), name):
                        raise self._damaged(name)
                    parts += 1
                self._append(block, content["files"], table)
                joined.append(content)
            plan.sync()
        return joined

    def _append(self, block: int, digests: dict[str, str], table: DocumentsTable) -> None:
        if not self._folder.intact(_documents(block), digests[_documents(block)]):
            raise self._damaged(_documents(block))
        with self._folder.open_file(_documents(block)) as stream, pq.ParquetFile(stream) as documents:
            table.append(documents)

    def _damaged(self, name: str) -> OutputError:
        return damaged(self._folder.path, f"unfinished plan: {name} is missing or damaged", START_OVER)

    def joined(self) -> bool:
        """Return whether the blocks have become a plan, so that none is left."""
        return not begun(self._folder)

    def remove(self) -> None:
        """Remove what joined blocks leave. Their locks, for which others may wait, go with the plan."""
        if self.joined():
            return
        with contextlib.suppress(OSError), self._folder.folder(PLAN_PARTS) as plan:
            plan.remove(_inner(BEGUN))  # first, so that nobody takes the blocks for missing
            for name in plan.names():
                if name.startswith(BLOCK):
                    plan.remove(name)


def _recorded(folder: Folder) -> bool:
    """Return whether a block of a plan was finished."""
    try:
        with folder.folder(PLAN_PARTS) as plan:
            return any(RECORD.fullmatch(name) for name in plan.names())
    except OSError:
        return False


def _record(block: int) -> str:
    return f"{PLAN_PARTS}/{BLOCK}{block:05d}"


def _documents(block: int) -> str:
    return f"{_record(block)}-documents.parquet"


def _part(block: int, index: int) -> str:
    return f"{_record(block)}-part-{index:05d}.parquet"


def _inner(name: str) -> str:
    return name.removeprefix(f"{PLAN_PARTS}/")


def _renamed(plan: Folder, name: str, new_name: str) -> bool:
    """Rename a file of the plan; return whether it has the new name, which a killed process may have given it."""
    with contextlib.suppress(FileNotFoundError):
        plan.rename(_inner(name), plan, _inner(new_name), durable=False)
    return plan.stat(_inner(new_name)) is not None
