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
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.errors import OutputError
from lossprobe.plan.part_scores import LADDER_TEMPERATURES, PartScores
from lossprobe.plan.rows import SCORED, Rows
from lossprobe.run.files import fill_table, json_bytes, read_sealed, sealed, sha256_of_bytes, writing
from lossprobe.run.manifest import KIND, START_OVER, damaged, part_name, plan_fault
from lossprobe.run.new_file import NewFile
from lossprobe.run.part_records import lock_own, note_kept, pending_parts, write_record
from lossprobe.run.part_values import planned_values, read_labels, read_reasons, routing_values
from lossprobe.run.schema import (
    CHECKED,
    DOCUMENTS,
    HISTOGRAM_COLUMNS,
    LABELS,
    MANIFEST,
    MEASURED,
    PART_TABLES,
    PLAN,
    PLAN_PARTS,
    PLANNED,
    ROUTING,
    ROUTING_COLUMNS,
    SCHEMA_VERSION,
    VOCABULARY,
    Column,
    ladder_columns,
    token_columns,
)
from lossprobe.units import visible

OWN = "own"
FOLDERS = (PLAN_PARTS, *PART_TABLES)
ALL_FOLDERS = (*FOLDERS, ROUTING)


class RunStore:
    """The directory of one run, opened once and locked by this process while it is open.

    Args:
        path: the run directory; created if it does not exist.

    Raises:
        OutputError: another process is writing it, it is a link, or it has files but no run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = lock_own(path, (MANIFEST, PLAN), ALL_FOLDERS, "run")

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock; a directory without even a plan is removed. What stops the process is noted what is kept."""
        note_kept(error, self._folder)
        empty = self._folder.stat(MANIFEST) is None and self._folder.stat(PLAN) is None
        if empty:
            with contextlib.suppress(OSError):
                self.clear()
        self._folder.unlock(remove=empty)

    def clear(self) -> None:
        """Remove all files of a run; run.json goes first, so that a run with files missing never looks complete."""
        for name in (MANIFEST, PLAN, CHECKED, DOCUMENTS, VOCABULARY, *ALL_FOLDERS):
            self._folder.remove(name)

    def plan(self) -> dict[str, Any] | None:
        """Return the stored plan (settings, counts, parts); None if planning was not finished.

        A plan of an earlier lossprobe, which stored no hashes, has no `files`: its finished parts cannot be checked.

        Raises:
            OutputError: the plan, or another file that planning wrote, is damaged.
        """
        if self._folder.stat(PLAN) is None:
            return None
        try:
            plan, sound = read_sealed(self._folder, PLAN)
        except ValueError as error:
            raise self._damaged(f"{PLAN} is damaged: {visible(str(error), 80)}") from None
        fault = plan_fault(plan, sealed=bool(sound))
        if sound is False or fault is not None:
            raise self._damaged(f"{PLAN} is damaged: {fault or 'its sha256 is not the one that it names'}")
        if not sound:
            plan.pop("files", None)
            return plan
        for name in ALL_FOLDERS:
            self._refuse_link(name)
        self._folder.digests = dict(plan["files"])
        for name in plan["files"]:
            if not self._folder.intact(name):
                raise self._damaged(f"{name} is missing or damaged")
        return plan

    def _refuse_link(self, name: str) -> None:
        """Refuse a link or file with the name of a folder of this run; a missing folder is created later."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._folder.folder(name).close()
        except OSError as error:
            raise self._damaged(f"{name} {error.strerror}") from None

    def start_plan(self) -> None:
        """Remove the files of an interrupted planning, and create the folders of the run."""
        self._folder.digests = {}
        with writing(self.path):
            self.clear()
            for name in FOLDERS:
                self._folder.folder(name, make=True).close()

    def target(self, name: str) -> AbstractContextManager[NewFile]:
        """Return a context manager that yields a new file of this run to write, and keeps its sha256."""
        return self._folder.target(name)

    def write_plan_part(self, index: int, rows: Rows) -> None:
        """Store the rows that one part is to score."""
        own = Column(OWN, "bool", "false for rows that an earlier part scores")
        columns = (*PLANNED, own, *(() if rows.labels is None else LABELS))
        self._write(part_name(PLAN_PARTS, index), columns, {**planned_values(rows), OWN: rows.own})

    def finish_plan(self, plan: dict[str, Any]) -> None:
        """Mark planning as complete."""
        content = json_bytes(sealed({**plan, "files": self._folder.digests}))
        with writing(self.path / PLAN):
            self._folder.write(PLAN, content)

    def read_plan_part(self, index: int) -> Rows:
        """Return the rows that one part is to score.

        Raises:
            OutputError: the file is missing, or is not the one that planning wrote.
        """
        name = part_name(PLAN_PARTS, index)
        try:
            data = self._folder.read(name)
        except OSError as error:
            raise self._damaged(f"{name}: {error.strerror}") from None
        if sha256_of_bytes(data) != self._folder.digests[name]:
            raise self._damaged(f"{name} is damaged (its sha256 is not the one in {PLAN})")
        table = pq.read_table(pa.BufferReader(data))
        values = {
            column.name: table[column.name].to_numpy().astype(np.int64)
            for column in PLANNED
            if column.name != "unscored"
        }
        unscored = read_reasons(table["unscored"])
        return Rows(**values, unscored=unscored, own=table[OWN].to_numpy(), labels=read_labels(table))

    def pending(self, parts: int) -> tuple[list[int], list[int]]:
        """Return the numbers of the parts to score, and of those among them that were finished but are damaged now."""
        return pending_parts(self._folder, parts, _names_a_part)

    def write_part(self, index: int, rows: Rows, scores: PartScores) -> None:
        """Store one scored part; its record is written last and marks it as complete."""
        own = rows.take(rows.own)
        tables = PART_TABLES if scores.routing is None else (*PART_TABLES, ROUTING)
        with writing(self.path):
            for table in tables:
                self._folder.folder(table, make=True).close()
        self._write_histogram(index, scores)
        if scores.routing is not None:
            self._write(part_name(ROUTING, index), ROUTING_COLUMNS, routing_values(scores.routing))
        ladder: dict[str, Any] = {"document": own.document[scores.ladder_rows], "token": own.token[scores.ladder_rows]}
        ladder |= {f"log_z_t{step}": scores.ladder[:, step] for step in range(len(LADDER_TEMPERATURES))}
        self._write(part_name("ladder", index), ladder_columns(LADDER_TEMPERATURES), ladder)
        values = planned_values(own)
        absent = own.unscored != SCORED
        for column in MEASURED:
            measured = scores.columns.get(column.name, np.zeros(len(own)))
            values[column.name] = np.ma.masked_array(measured.astype(column.type.to_pandas_dtype()), absent)
        self._write(part_name("tokens", index), token_columns(labelled=own.labels is not None), values)
        write_record(self._folder, index, [part_name(table, index) for table in tables])

    def _write_histogram(self, index: int, scores: PartScores) -> None:
        pairs, mass, hits = scores.histogram
        document, bin_ = np.nonzero(pairs)
        values = {
            "document": scores.histogram_documents[document],
            "bin": bin_,
            "pairs": pairs[document, bin_].astype(np.int64),
            "sum_p": mass[document, bin_],
            "hits": hits[document, bin_].astype(np.int64),
        }
        self._write(part_name("histogram", index), HISTOGRAM_COLUMNS, values)

    def _write(self, name: str, columns: tuple[Column, ...], values: dict[str, Any]) -> None:
        with self.target(name) as target:
            fill_table(target, columns, values)

    def finish(self, plan: dict[str, Any], *, keep_plan: bool = False) -> None:
        """Write run.json with the hash of every file, then remove the plan unless it is kept for other runs."""
        tables = (*PART_TABLES, ROUTING) if part_name(ROUTING, 0) in self._folder.digests else PART_TABLES
        parts = [part_name(table, index) for table in tables for index in range(len(plan["part_rows"]))]
        files = {name: self._folder.digests[name] for name in [*sorted(parts), DOCUMENTS, VOCABULARY]}
        content = {"kind": KIND, "schema": SCHEMA_VERSION, **plan, "files": files}
        with writing(self.path / MANIFEST):
            self._folder.write(MANIFEST, json_bytes(sealed(content)))
        if not keep_plan:
            self.drop_plan()

    def drop_plan(self) -> None:
        """Remove the plan, which a complete run does not need."""
        with contextlib.suppress(OSError):
            for name in (PLAN_PARTS, PLAN):
                self._folder.remove(name)

    def _damaged(self, what: str) -> OutputError:
        return damaged(self.path, f"unfinished run: {what}", START_OVER)


def _names_a_part(index: int, names: set[str]) -> bool:
    """Return whether some names are those of the files of a part; only a mixture of experts has one for its routers."""
    return names - {part_name(ROUTING, index)} == {part_name(table, index) for table in PART_TABLES}
