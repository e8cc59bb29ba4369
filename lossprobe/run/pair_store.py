"""Writes a pair to disk: first what is to be measured, then part by part the divergences, and last pair.json.

    PAIR/pair-plan.json                          settings of an unfinished pair; gone when it is complete
    PAIR/plan/part-00000.json …                  the sha256 of each finished part; gone with the plan
    PAIR/divergence/part-00000.parquet …         see `pair`
    PAIR/pair.json                               written last

The rows to measure are those of a stored run, part by part, so that no plan of them is needed. As with runs, a killed
process resumes at the parts that are missing, and ends with the same bytes as if it had never stopped.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.files import fill_table, json_bytes, read_sealed, sealed, sha256_of_json, writing
from lossprobe.run.manifest import part_name
from lossprobe.run.pair import PAIR_KIND
from lossprobe.run.part_records import lock_own, note_kept, pending_parts, recorded, write_record
from lossprobe.run.presence import NO_FOLDER, FolderPlace, confirm_files, confirm_settings, gone, stands
from lossprobe.run.schema import CHECKED, DIVERGENCE, DIVERGENCE_COLUMNS, PAIR, PAIR_PLAN, PLAN_PARTS, SCHEMA_VERSION
from lossprobe.units import visible

FOLDERS = (DIVERGENCE, PLAN_PARTS)
# pair.json goes first: a pair with parts missing never looks complete
OWN = (PAIR, PAIR_PLAN, CHECKED, *FOLDERS)


class PairStore:
    """The folder of one pair, opened once and locked by this process while it is open.

    Args:
        path: the folder; created if it does not exist.

    Raises:
        OutputError: another process is writing it, it is a link, or it has files but no pair.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = lock_own(path, (PAIR, PAIR_PLAN), FOLDERS, "pair of runs")
        self._finished = False

    def __enter__(self) -> PairStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock; a folder without a finished part is removed. What stops the process is noted what is kept.

        Raises:
            OutputError: in place of another one, the folder was removed or replaced.
        """
        lost = isinstance(error, OutputError) and not stands(self._folder)
        note_kept(error, self._folder)
        empty = self._folder.stat(PAIR) is None and not recorded(self._folder)
        if empty:
            with contextlib.suppress(OSError):
                self._clear()
        self._folder.unlock(remove=empty)
        if lost:
            raise gone(visible(str(self.path), 200), NO_FOLDER) from None

    def begin(self, plan: dict[str, Any], *, resume: bool) -> tuple[list[int], list[int]]:
        """Return the numbers of the parts to measure, and of those among them that were finished but are damaged now.

        Parts of a pair that was begun with another plan, or that is not to be resumed, are removed.

        Args:
            plan: settings, what was measured while the models were opened, labels, counts and `part_rows`.
            resume: whether the plan identifies both models, so that parts of it are theirs.
        """
        parts = len(plan["part_rows"])
        if not resume or self._stored_plan() != sha256_of_json(plan):
            with writing(self.path):
                self._clear()
                for name in FOLDERS:
                    self._folder.folder(name, make=True).close()
                self._folder.write(PAIR_PLAN, json_bytes(sealed(plan)))
            return list(range(parts)), []
        return pending_parts(self._folder, range(parts), lambda index, names: names == {part_name(DIVERGENCE, index)})

    def write_part(self, index: int, values: dict[str, Any]) -> None:
        """Store one part; its record is written last and marks it as complete.

        Args:
            index: its number.
            values: the columns of `DIVERGENCE_COLUMNS`, masked where a row has no loss.
        """
        name = part_name(DIVERGENCE, index)
        with writing(self.path):
            self._folder.folder(DIVERGENCE, make=True).close()
        with self._folder.target(name) as target:
            fill_table(target, DIVERGENCE_COLUMNS, values)
        write_record(self._folder, index, [name])

    def finish(self, plan: dict[str, Any]) -> None:
        """Write pair.json with the hash of every part, then remove the plan.

        Raises:
            OutputError: the pair was removed or replaced meanwhile, or it cannot be written.
        """
        names = [part_name(DIVERGENCE, index) for index in range(len(plan["part_rows"]))]
        files = {name: self._folder.digests[name] for name in names}
        content = {"kind": PAIR_KIND, "schema": SCHEMA_VERSION, **plan, "files": files}
        place, shown = FolderPlace(self._folder), visible(str(self.path), 200)
        confirm_files(place, shown, names, self._folder.sizes)
        with writing(self.path / PAIR):
            self._folder.write(PAIR, json_bytes(sealed(content)))
        confirm_settings(place, shown, PAIR, plan["settings"])
        with contextlib.suppress(OSError):
            for name in (PLAN_PARTS, PAIR_PLAN):
                self._folder.remove(name)

    def _clear(self) -> None:
        for name in OWN:
            self._folder.remove(name)

    def _stored_plan(self) -> str | None:
        """Return the hash of the plan of an unfinished pair; None without one, or if it is damaged."""
        try:
            plan, sound = read_sealed(self._folder, PAIR_PLAN)
        except ValueError:
            return None
        return sha256_of_json(plan) if sound else None
