"""Reads the plan of an unfinished run and writes its parts; several processes may do so for one run.

A part has the name of its number in the plan. Its files are written whole under temporary names and renamed, so that a
part that two processes score is there once; its record, written last, names the plan and the hashes of the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.errors import OutputError
from lossprobe.plan.part_scores import LADDER_TEMPERATURES, PartScores
from lossprobe.plan.rows import SCORED, Rows
from lossprobe.run.files import fill_table, read_sealed, sha256_of_bytes, sha256_of_json, writing
from lossprobe.run.identity import Settings
from lossprobe.run.manifest import START_OVER, damaged, part_name, plan_fault
from lossprobe.run.new_file import NewFile
from lossprobe.run.part_records import note_kept, pending_parts, record_name, write_record
from lossprobe.run.part_values import OWN, planned_values, read_labels, read_reasons, routing_values
from lossprobe.run.plain_arrays import to_numpy
from lossprobe.run.plan_blocks import kept_plan
from lossprobe.run.presence import NO_FOLDER, FolderPlace, Place, gone, stands
from lossprobe.run.schema import (
    DOCUMENTS,
    HISTOGRAM_COLUMNS,
    MEASURED,
    PART_TABLES,
    PLAN,
    PLAN_PARTS,
    PLANNED,
    ROUTING,
    ROUTING_COLUMNS,
    VOCABULARY,
    Column,
    ladder_columns,
    token_columns,
)
from lossprobe.run.shown import shown_run
from lossprobe.run.twin import twin_of
from lossprobe.run.written import WrittenFolder
from lossprobe.units import visible

FOLDERS = (PLAN_PARTS, *PART_TABLES)
ALL_FOLDERS = (*FOLDERS, ROUTING)


class PartStore:
    """The folder of a run whose plan is read and whose parts are written; it takes no lock.

    Args:
        path: the run directory.
        folder: the same, opened.
    """

    def __init__(self, path: Path, folder: WrittenFolder) -> None:
        self.path = path
        self._folder = folder
        self._plan_sha256 = ""
        self._settings: Settings = {}
        self._twin = twin_of(path)
        self._place: Place = self._twin or FolderPlace(folder)

    @property
    def shown(self) -> str:
        """Where the run is, for messages: its folder, or its address on object storage."""
        return shown_run(self.path)

    def note_kept(self, error: BaseException | None, *, blocks: bool) -> None:
        """Note on what stops the process what is kept of the run; see `part_records.note_kept`.

        Args:
            error: what stops it, if anything does.
            blocks: whether the same command goes on with the blocks of a plan that was begun.
        """
        # A plan on object storage may have been stopped on its way there; what is here does not count then.
        planned = "" if self._twin is not None else kept_plan(self._folder, blocks=blocks)
        note_kept(error, self._folder, planned)

    def gone_instead(self, error: BaseException | None) -> OutputError | None:
        """Return what to raise in place of an error that follows from it: the run's folder was removed or replaced.

        Return None where the folder is there, and where the error is another one.
        """
        # The folder of a run on object storage is a copy: what is wrong with it says nothing about the run.
        failed = isinstance(error, OutputError) and self._twin is None
        return gone(self.shown, NO_FOLDER) if failed and not stands(self._folder) else None

    def bring(self, wanted: Callable[[int], bool] = lambda _: True) -> bool:
        """Make the folder of a run on object storage equal to what is there; return whether it is one.

        Args:
            wanted: of which parts files are needed.

        Raises:
            OutputError: the store cannot be asked.
        """
        if self._twin is not None:
            self._twin.bring(wanted)
        return self._twin is not None

    def plan(self, *, whole: bool = True) -> dict[str, Any] | None:
        """Return the stored plan (settings, counts, parts); None if planning was not finished.

        A plan of an earlier lossprobe, which stored no hashes, has no `files`: its finished parts cannot be checked.

        Args:
            whole: check the planned rows of every part now; else only those that are read, when they are.

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
        self._plan_sha256, self._settings = sha256_of_json(plan), plan["settings"]
        for name in plan["files"] if whole else (DOCUMENTS, VOCABULARY):
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

    def target(self, name: str) -> AbstractContextManager[NewFile]:
        """Return a context manager that yields a new file of this run to write, and keeps its sha256."""
        return self._folder.target(name)

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
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        values = {
            column.name: to_numpy(table[column.name].combine_chunks()).astype(np.int64)
            for column in PLANNED
            if column.name != "unscored"
        }
        own = to_numpy(table[OWN].combine_chunks())
        return Rows(**values, unscored=read_reasons(table["unscored"]), own=own, labels=read_labels(table))

    def pending(self, parts: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return which of some parts are to be scored, and which of these were finished but are damaged now.

        A part that was scored from another plan is to be scored.
        """
        return pending_parts(self._folder, parts, _names_a_part, self._plan_sha256)

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
        names = [part_name(table, index) for table in tables]
        write_record(self._folder, index, names, self._plan_sha256)
        if self._twin is not None:
            self._twin.send_part(names, record_name(index))

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

    def _damaged(self, what: str) -> OutputError:
        return damaged(self.path, f"unfinished run: {what}", START_OVER)


def _names_a_part(index: int, names: set[str]) -> bool:
    """Return whether some names are those of the files of a part; only a mixture of experts has one for its routers."""
    return names - {part_name(ROUTING, index)} == {part_name(table, index) for table in PART_TABLES}
