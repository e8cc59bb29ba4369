"""A complete run, opened for reading: its manifest, and SQL over its columns. Loads no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from lossprobe.errors import OutputError, ResourceError, UsageError
from lossprobe.isolation import temporary_folder
from lossprobe.run.files import refuse_undecodable, sha256_of
from lossprobe.run.schema import MANIFEST, PLAN, SCHEMA_VERSION
from lossprobe.units import visible

RUNS_FOLDER = ".lossprobe"
LATEST = "latest"
BATCH_ROWS = 65_536
MEMORY_LIMIT = "2GB"
TABLES = ("tokens", "histogram", "ladder", "documents", "vocabulary")
# Nothing is downloaded, and nothing of the user's DuckDB is read.
ISOLATED = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}
BAD_SQL = (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException)


@dataclass(frozen=True)
class Run:
    """A complete run; immutable.

    Attributes:
        path: its directory.
        manifest: the content of `run.json`: `settings` (what makes two runs the same), `labels` (names for
            headings), `counts`, `files` (name → sha256).

    SQL sees the tables `tokens`, `documents`, `vocabulary`, `histogram` and `ladder`, with the columns of
    `run.schema`. Queries run out of core, and on one thread, so that sums are the same to the last digit
    each time.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return str(self.manifest["labels"]["checkpoint"])

    @property
    def text_name(self) -> str:
        """The text's name."""
        return str(self.manifest["labels"]["text"])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The files that the checkpoint was read from, as absolute paths; none where the run does not say."""
        stored = self.manifest.get("inputs")
        return tuple(each for each in stored if isinstance(each, str)) if isinstance(stored, list) else ()

    @property
    def counts(self) -> dict[str, Any]:
        """Tokens, bytes, characters, words and documents, read and scored; see `run.planning`."""
        return dict(self.manifest["counts"])

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(self.manifest["settings"]["checkpoint"]["vocab_size"])

    @property
    def context(self) -> int:
        """Most input tokens of a window."""
        return int(self.manifest["settings"]["windows"]["context"])

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        temporary = temporary_folder()
        # Made only when a query outgrows its memory.
        spill = "" if temporary is None else str(temporary / f"lossprobe-{os.getpid()}")
        connection = duckdb.connect(
            config={"threads": 1, "memory_limit": MEMORY_LIMIT, "temp_directory": spill, **ISOLATED}
        )
        for table in TABLES:
            files = self.table_files(table)
            if files:
                self._create_view(connection, table, files)
        return connection

    def table_files(self, table: str) -> list[str]:
        """Return the files of a table, in the order of their rows; none where a baseline leaves it out."""
        starts = (f"{table}/", f"{table}.")
        return sorted(name for name in self.manifest["files"] if name.startswith(starts))

    def relation(self, table: str) -> str:
        """Return SQL that reads a table of this run in a query of another one."""
        return _read_parquet(self.path, self.table_files(table))

    def _create_view(self, connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str]) -> None:
        with self._reading():
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {_read_parquet(self.path, names)}")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn damage that shows while a file is read into an `OutputError`; bad SQL stays what it is."""
        try:
            yield
        except BAD_SQL:
            raise
        except duckdb.OutOfMemoryException:
            raise ResourceError(
                "run.memory", f"{visible(str(self.path), 200)}: a query needs over {MEMORY_LIMIT}"
            ) from None
        except duckdb.Error as error:
            reason = visible(str(error).splitlines()[0], 160)
            raise OutputError(
                "run.damaged",
                f"{visible(str(self.path), 200)}: cannot be read: {reason}",
                hint="check it with lossprobe verify",
            ) from None

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Return the result of a SQL query as a frame."""
        with self._reading():
            return self._connection.execute(sql, list(parameters)).df()

    def batches(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[pa.RecordBatch]:
        """Yield the result of a SQL query in Arrow batches, in bounded memory."""
        stream = self._connection.cursor()  # its own, so that other queries can run between the batches
        with self._reading():
            yield from stream.sql(sql, params=list(parameters)).to_arrow_reader(BATCH_ROWS)

    def scalar(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Return the single value of a SQL query."""
        with self._reading():
            row = self._connection.execute(sql, list(parameters)).fetchone()
        assert row is not None
        return row[0]

    def damaged_files(self) -> list[str]:
        """Return the files whose bytes are gone or no longer what `run.json` says."""
        return [name for name, digest in self.manifest["files"].items() if not self._intact(name, digest)]

    def missing_files(self) -> list[str]:
        """Return the files that `run.json` names and that are not there."""
        return [name for name in self.manifest["files"] if not (self.path / name).is_file()]

    def _intact(self, name: str, digest: str) -> bool:
        file = self.path / name
        return ".." not in Path(name).parts and file.is_file() and sha256_of(file) == digest


def is_run(path: Path) -> bool:
    """Return whether a path is a run directory, complete or not."""
    return path.is_dir() and ((path / MANIFEST).is_file() or (path / PLAN).is_file())


def open_run(path: Path | str) -> Run:
    """Return a complete run.

    Raises:
        UsageError: the path is no run.
        OutputError: the run is unfinished, damaged, or of another schema version.
    """
    path = Path(path)
    shown = visible(str(path), 200)
    file = path / MANIFEST
    if not is_run(path):
        raise UsageError(
            "run.missing", f"{shown}: is no run (no {MANIFEST})", hint="a checkpoint needs a text after it"
        )
    if not file.is_file():
        done = len(list((path / "tokens").glob("*.parquet")))
        raise OutputError(
            "run.unfinished",
            f"{shown}: unfinished run ({done} parts stored)",
            hint="repeat the score command to resume it",
        )
    try:
        manifest = json.loads(file.read_text("utf-8"))
        kind, version = manifest["kind"], manifest["schema"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError("run.damaged", f"{shown}: {MANIFEST} is damaged: {visible(str(error), 80)}") from None
    if kind != "lossprobe run" or version != SCHEMA_VERSION:
        raise OutputError(
            "run.schema",
            f"{shown}: schema {visible(str(version), 20)}, this lossprobe reads {SCHEMA_VERSION}",
            hint="score again",
        )
    if not all(isinstance(manifest.get(key), dict) for key in ("settings", "labels", "counts", "files")):
        raise OutputError(
            "run.damaged", f"{shown}: {MANIFEST} is damaged: settings, labels, counts or files are missing"
        )
    return Run(path, manifest)


def latest_run(folder: Path) -> Run:
    """Return the run that was last made or reused in a working folder.

    Raises:
        UsageError: there is none.
        OutputError: it cannot be read any more.
    """
    pointer = folder / RUNS_FOLDER / LATEST
    if not pointer.is_file():
        raise UsageError(
            "run.none",
            f"no run in this folder yet (no {RUNS_FOLDER}/{LATEST})",
            hint="score first: lossprobe score CHECKPOINT TEXT",
        )
    return open_run(folder / pointer.read_text("utf-8").removesuffix("\n"))


def _read_parquet(folder: Path, names: Sequence[str]) -> str:
    refuse_undecodable(folder)
    return f"read_parquet([{', '.join(_quoted(str(folder / name)) for name in names)}])"


def _quoted(path: str) -> str:
    """Return a path as a SQL string that DuckDB takes for one file: *, ? and [ in it are no wildcards."""
    plain = "".join(f"[{c}]" if c in "*?[" else c for c in path)
    return "'" + plain.replace("'", "''") + "'"
