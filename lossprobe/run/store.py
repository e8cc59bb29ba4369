"""Writes a run to disk: first the plan, then part by part the scores, and last run.json.

    RUN/plan.json, plan/part-00000.parquet …     what is to be scored; gone when the run is complete
    RUN/plan/part-00000.json …                   the sha256 of each file of a finished part; gone with the plan
    RUN/tokens/part-00000.parquet …              one row per token
    RUN/histogram/…, RUN/ladder/…                two small tables, written part by part too
    RUN/routing/…                                one more, only of a mixture of experts
    RUN/documents.parquet, RUN/vocabulary.parquet
    RUN/run.json                                 settings, counts, and the sha256 of every other file and of itself

A sha256 is computed from the bytes while they are written, and never from the file later, so that damage between two
sessions is found. The record of a part (its sha256 file under plan/) is written last: a part with a record is complete.
A killed run therefore resumes at the parts that are missing, and ends with the same bytes as if it had never stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lossprobe.plan.rows import Rows
from lossprobe.run.document_table import documents_table
from lossprobe.run.files import json_bytes, read_sealed, sealed, sha256_of_json, writing
from lossprobe.run.identity import Settings
from lossprobe.run.manifest import BEGUN, FIRST_WINDOWS, KIND, damaged, part_name
from lossprobe.run.part_records import lock_own
from lossprobe.run.part_store import ALL_FOLDERS, FOLDERS, PartStore
from lossprobe.run.part_values import write_planned
from lossprobe.run.plan_blocks import PlanBlocks, begun
from lossprobe.run.presence import confirm_files, confirm_settings
from lossprobe.run.schema import (
    CHECKED,
    DOCUMENTS,
    MANIFEST,
    PART_TABLES,
    PLAN,
    PLAN_PARTS,
    ROUTING,
    SCHEMA_VERSION,
    VOCABULARY,
)
from lossprobe.run.shard_locks import running_shard


class RunStore(PartStore):
    """The directory of one run, opened once and locked by this process while it is open.

    Args:
        path: the run directory; created if it does not exist.
        among_shards: for a shard that starts, which plans if no other has: it waits for others that start, and leaves
            those that run alone.

    Raises:
        OutputError: another process is writing it, it is a link, or it has files but no run.
    """

    def __init__(self, path: Path, *, among_shards: bool = False) -> None:
        self._among_shards = among_shards
        self._locked = lock_own(path, (MANIFEST, PLAN), ALL_FOLDERS, "run", among_shards=among_shards)
        super().__init__(path, self._locked)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock; a directory without even a plan is removed. What stops the process is noted what is kept.

        Raises:
            OutputError: in place of another one, the folder was removed or replaced.
        """
        lost = self.gone_instead(error)
        self.note_kept(error, blocks=self._among_shards)
        if self._twin is not None:
            self._twin.stop_sending()
        empty = all(self._folder.stat(name) is None for name in (MANIFEST, PLAN)) and not begun(self._folder)
        if empty:
            with contextlib.suppress(OSError):
                self.clear()
        self._locked.unlock(remove=empty and not self._among_shards)  # other shards wait for it
        if lost is not None:
            raise lost from None

    def clear(self) -> None:
        """Remove all files of a run; run.json goes first, so that a run with files missing never looks complete."""
        for name in (MANIFEST, PLAN, CHECKED, DOCUMENTS, VOCABULARY, *ALL_FOLDERS):
            self._folder.remove(name)

    def start_plan(self) -> None:
        """Remove the files of an interrupted planning, and create the folders of the run."""
        self._folder.digests = {}
        with writing(self.path):
            self.clear()
            for name in FOLDERS:
                self._folder.folder(name, make=True).close()

    def begun_plan(self) -> dict[str, Any] | None:
        """Return what identifies the run whose plan several processes have begun, as plan.json; None if none was."""
        try:
            content, sound = read_sealed(self._folder, BEGUN)
        except ValueError:
            return None
        return content if sound and content.keys() == {"settings", "labels", "measured"} else None

    def begin_blocks(self, settings: Settings, labels: dict[str, str], measured: dict[str, Any]) -> None:
        """Prepare the folder for a plan that several processes make; see `run.plan_blocks`.

        Args:
            settings: the identity of the run.
            labels: the names of checkpoint and text, by which a list of runs shows it.
            measured: facts that were measured when the checkpoint was opened.

        Raises:
            OutputError: shards are running that have lost the plan which they work on, or it cannot be written.
        """
        running = running_shard(self._folder)
        if running is not None:
            raise damaged(self.path, f"{running} is running, and {BEGUN} is missing or damaged")
        self.start_plan()
        with writing(self.path / BEGUN):
            content = {"settings": settings, "labels": labels, "measured": measured}
            self._folder.write(BEGUN, json_bytes(sealed(content)))

    def forget_blocks(self) -> None:
        """Remove a plan that several processes began, unless one of them is running."""
        if begun(self._folder) and running_shard(self._folder) is None:
            self.clear()

    def forget_lost_blocks(self, ends: Sequence[str], settings_sha256: str) -> str | None:
        """Forget the blocks of a plan that cannot be joined, and return a notice of it; None if all of them can.

        Args:
            ends: hash of the text at the end of each block.
            settings_sha256: hash of the identity of the run.
        """
        blocks = PlanBlocks(self._folder)
        lost = blocks.forget_lost(ends, settings_sha256)
        return blocks.planned_again(lost) if lost else None

    def join_blocks(self, count: int) -> list[dict[str, Any]]:
        """Make the blocks of a plan those of the run, and return what was stored of each.

        Args:
            count: number of blocks.

        Raises:
            OutputError: a file of a block is missing or damaged.
        """
        blocks = PlanBlocks(self._folder)
        with self.target(DOCUMENTS) as target, documents_table(target) as table:
            return blocks.join(count, table)

    def write_plan_part(self, index: int, rows: Rows) -> None:
        """Store the rows that one part is to score."""
        write_planned(self._folder, part_name(PLAN_PARTS, index), rows)

    def finish_plan(self, plan: dict[str, Any]) -> None:
        """Mark planning as complete.

        On object storage, which has no locks, several shards may plan at once. All make the same plan; who finds one
        there leaves it, since parts may have been scored from it already.
        """
        content = {**plan, "files": self._folder.digests}
        with writing(self.path / PLAN):
            self._folder.write(PLAN, json_bytes(sealed(content)))
        self._plan_sha256 = sha256_of_json(content)
        PlanBlocks(self._folder).remove()
        twin = self._twin
        if twin is not None and not (self._among_shards and (twin.holds(PLAN) or twin.holds(MANIFEST))):
            twin.send_plan(self._folder.digests)

    def finish(self, plan: dict[str, Any], *, keep_plan: bool = False) -> None:
        """Write run.json with the hash of every file, then remove the plan unless it is kept for other runs.

        Raises:
            OutputError: the run was removed or replaced meanwhile, or it cannot be written.
        """
        tables = (*PART_TABLES, ROUTING) if part_name(ROUTING, 0) in self._folder.digests else PART_TABLES
        parts = [part_name(table, index) for table in tables for index in range(len(plan["part_rows"]))]
        files = {name: self._folder.digests[name] for name in [*sorted(parts), DOCUMENTS, VOCABULARY]}
        told = {name: value for name, value in plan.items() if name != FIRST_WINDOWS}  # of the planned rows alone
        content = {"kind": KIND, "schema": SCHEMA_VERSION, **told, "files": files}
        if self._twin is not None:
            self._twin.finish_sending()
        # Before run.json, with which the run looks complete.
        confirm_files(self._place, self.shown, files, self._folder.sizes)
        with writing(self.path / MANIFEST):
            self._folder.write(MANIFEST, json_bytes(sealed(content)))
        if self._twin is not None:
            self._twin.send([MANIFEST])
        confirm_settings(self._place, self.shown, MANIFEST, plan["settings"])
        if not keep_plan:
            self.drop_plan()

    def drop_plan(self) -> None:
        """Remove the plan, which a complete run does not need."""
        with contextlib.suppress(OSError):
            for name in (PLAN_PARTS, PLAN):
                self._folder.remove(name)
        if self._twin is not None:
            self._twin.drop_plan()
