"""A run on disk while it is made: planned first, then written part by part, `run.json` last.

    RUN/plan.json, plan/part-00000.parquet …     what is to be scored; gone when the run is complete
    RUN/tokens/part-00000.parquet …              one row per token
    RUN/histogram/…, RUN/ladder/…                the two small things streamed beside the rows
    RUN/documents.parquet, RUN/vocabulary.parquet
    RUN/run.json                                 settings, counts, and the sha256 of every other file

A part is complete when its file under tokens/ is there (it is renamed into place last), so a killed run
resumes at the first missing part and ends byte for byte as if it had never stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from lossprobe.errors import OutputError
from lossprobe.run.files import remove_temporary_files, sha256_of, write_json, write_table, writing
from lossprobe.run.schema import (
    HISTOGRAM_COLUMNS,
    MANIFEST,
    MEASURED,
    PLAN,
    PLANNED,
    SCHEMA_VERSION,
    TOKEN_COLUMNS,
    Column,
    ladder_columns,
)
from lossprobe.scoring.ladder import LADDER_TEMPERATURES
from lossprobe.scoring.plan import SCORED, UNSCORED, Rows
from lossprobe.scoring.scorer import PartScores
from lossprobe.units import visible

LOCK = ".lock"
HOLDER = ".lock-holder"
OWN = "own"


class RunStore:
    """One run directory, locked by this process while it is open.

    Args:
        path: the run directory; made when it does not exist.

    Raises:
        OutputError: another process is writing it, it is a link, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shown = visible(str(path), 200)
        if path.is_symlink():
            raise OutputError("output.link", f"{shown}: is a symbolic link, which is never followed")
        if path.is_dir() and not any((path / name).exists() for name in (MANIFEST, PLAN, LOCK)) and any(path.iterdir()):
            raise OutputError("output.foreign", f"{shown}: exists and is no run")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / LOCK)  # the kernel frees it, even after kill -9
            self._take_lock(shown)

    def _take_lock(self, shown: str) -> None:
        holder = self.path / HOLDER
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            pid = visible(holder.read_text("utf-8"), 20) if holder.exists() else "unknown"
            raise OutputError(
                "output.locked", f"{shown}: locked by pid {pid}", hint="wait for it, or use another -o"
            ) from None
        holder.write_text(str(os.getpid()), encoding="utf-8")
        remove_temporary_files(self.path)

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock; a directory without even a plan is removed.

        The lock file of a run stays: another process may wait on it, and a second one beside it would lock nothing.
        """
        (self.path / HOLDER).unlink(missing_ok=True)
        empty = not (self.path / MANIFEST).exists() and not (self.path / PLAN).exists()
        if empty:
            self.clear()
            (self.path / LOCK).unlink(missing_ok=True)
        self._lock.release()
        if empty:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def clear(self) -> None:
        """Remove everything that a run keeps here, for `--overwrite`."""
        for name in (MANIFEST, PLAN, "documents.parquet", "vocabulary.parquet"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("plan", "tokens", "histogram", "ladder"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def plan(self) -> dict[str, Any] | None:
        """Return the stored plan (settings, counts, parts), or None before planning was complete."""
        file = self.path / PLAN
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def start_plan(self) -> None:
        """Make room for a new plan; what an interrupted planning left is removed."""
        self.clear()
        for name in ("plan", "tokens", "histogram", "ladder"):
            with writing(self.path / name):
                (self.path / name).mkdir()

    def write_plan_part(self, index: int, rows: Rows) -> None:
        """Store what one part is to score."""
        values = {column.name: getattr(rows, column.name) for column in PLANNED}
        values["unscored"] = _reasons(rows.unscored)
        own = Column(OWN, pa.bool_(), "false for rows that an earlier part scores")
        write_table(self._part("plan", index), (*PLANNED, own), {**values, OWN: rows.own})

    def finish_plan(self, plan: dict[str, Any]) -> None:
        """Mark planning as complete."""
        write_json(self.path / PLAN, plan)

    def read_plan_part(self, index: int) -> Rows:
        """Return what one part is to score."""
        table = pq.read_table(self._part("plan", index))
        values = {
            column.name: table[column.name].to_numpy().astype(np.int64)
            for column in PLANNED
            if column.name != "unscored"
        }
        codes = {None: SCORED} | {reason: code for code, reason in enumerate(UNSCORED)}
        unscored = np.array([codes[reason] for reason in table["unscored"].to_pylist()], np.int64)
        return Rows(**values, unscored=unscored, own=table[OWN].to_numpy())

    def pending(self, parts: int) -> Iterator[int]:
        """Yield the parts that are not stored yet."""
        return (index for index in range(parts) if not self._part("tokens", index).exists())

    def write_part(self, index: int, rows: Rows, scores: PartScores) -> None:
        """Store one scored part; its token file goes last, and marks the part as complete."""
        own = rows.take(rows.own)
        self._write_histogram(index, scores)
        ladder: dict[str, Any] = {"document": own.document[scores.ladder_rows], "token": own.token[scores.ladder_rows]}
        ladder |= {f"log_z_t{step}": scores.ladder[:, step] for step in range(len(LADDER_TEMPERATURES))}
        write_table(self._part("ladder", index), ladder_columns(LADDER_TEMPERATURES), ladder)
        values: dict[str, Any] = {column.name: getattr(own, column.name) for column in PLANNED}
        values["unscored"] = _reasons(own.unscored)
        absent = own.unscored != SCORED
        for column in MEASURED:
            measured = scores.columns.get(column.name, np.zeros(len(own)))
            values[column.name] = np.ma.masked_array(measured.astype(column.type.to_pandas_dtype()), absent)
        write_table(self._part("tokens", index), TOKEN_COLUMNS, values)

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
        write_table(self._part("histogram", index), HISTOGRAM_COLUMNS, values)

    def finish(self, plan: dict[str, Any]) -> None:
        """Write `run.json` with the hash of every file, then drop the plan."""
        names = sorted(
            str(file.relative_to(self.path))
            for folder in ("tokens", "histogram", "ladder")
            for file in (self.path / folder).glob("*.parquet")
        )
        files = {name: sha256_of(self.path / name) for name in [*names, "documents.parquet", "vocabulary.parquet"]}
        write_json(self.path / MANIFEST, {"kind": "lossprobe run", "schema": SCHEMA_VERSION, **plan, "files": files})
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path / "plan")
            (self.path / PLAN).unlink()

    def _part(self, folder: str, index: int) -> Path:
        return self.path / folder / f"part-{index:05d}.parquet"


def _reasons(codes: npt.NDArray[np.int64]) -> pa.DictionaryArray:
    """Return the reasons why rows are not scored as a dictionary column, null where they are."""
    indices = pa.array(codes.astype(np.int8), mask=codes == SCORED)
    return pa.DictionaryArray.from_arrays(indices, pa.array(UNSCORED))
