"""A complete run, opened for reading: its manifest, and SQL over its columns. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossprobe.arguments import as_path
from lossprobe.display import to_html
from lossprobe.errors import OutputError, UsageError
from lossprobe.plain_table import PlainTable
from lossprobe.run.ahead import read_ahead
from lossprobe.run.checks import FileChecks
from lossprobe.run.copies import Copies, number_texts
from lossprobe.run.files import read_sealed, refuse_undecodable
from lossprobe.run.folder import Folder
from lossprobe.run.held import HeldFile
from lossprobe.run.inputs import read_inputs
from lossprobe.run.latest import RUNS_FOLDER as RUNS_FOLDER
from lossprobe.run.latest import latest_path
from lossprobe.run.manifest import KIND, damaged, is_count, part_names, run_fault, unfinished
from lossprobe.run.opened import telling_removed
from lossprobe.run.parquet import read_parquet
from lossprobe.run.run_folders import is_run, no_run
from lossprobe.run.schema import ALL_TABLES, MANIFEST, SCHEMA_VERSION
from lossprobe.run.settings import RunSettings, read_run_settings
from lossprobe.run.shown import shown_run
from lossprobe.run.texts import Vocabulary, load_vocabulary
from lossprobe.run.token_digest import digest_of
from lossprobe.run.token_rows import token_rows
from lossprobe.units import visible

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa

BATCH_ROWS = 65_536
UNSEALED = (
    "made by an earlier lossprobe: run.json carries no hash of its own, and its files are not checked before they are "
    "read; lossprobe verify checks them"
)


@dataclass(frozen=True)
class Run:
    """A complete run; immutable.

    Attributes:
        path: its directory.
        manifest: the content of `run.json`: `settings` (what makes two runs the same), `labels` (names for
            headings), `counts`, `files` (name → sha256).
        checks: checks its files before the first query; None if no check is needed.
        notices: lines about the run that a user should read.
        held: the tokens file of a baseline, kept open since a writer may replace it; None without one.

    SQL sees the tables `tokens`, `documents`, `vocabulary`, `histogram`, `ladder` and, of a mixture of experts,
    `routing`, with the columns of `run.schema`. A query runs on one thread: its sums are the same to the last digit.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    checks: FileChecks | None = field(default=None, repr=False)
    notices: tuple[str, ...] = ()
    held: HeldFile | None = field(default=None, repr=False, compare=False)

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
        """The files that the checkpoint was read from, as absolute paths; empty if run.json does not say."""
        return read_inputs(self.manifest.get("inputs"), self.path)

    @cached_property
    def settings(self) -> RunSettings:
        """Model, text and windows of the run."""
        return read_run_settings(self.manifest["settings"])

    @property
    def counts(self) -> dict[str, Any]:
        """Tokens, bytes, characters, words and documents, read and scored; see `passes.planning`."""
        return dict(self.manifest["counts"])

    @property
    def labelled(self) -> bool:
        """Whether its tokens have turns, roles and parts."""
        return self.settings.text.kind is not None

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return self.settings.checkpoint.vocab_size

    @property
    def context(self) -> int:
        """Most input tokens of a window."""
        context = self.settings.windows.context
        if not is_count(context, least=1):  # possible if run.json has no hash of itself
            raise damaged(self.path, f"{MANIFEST} is damaged: context is no size")
        return context

    @cached_property
    def tokens_sha256(self) -> str:
        """The hash of the tokens of its text; "" for a baseline that was made without one."""
        return digest_of(self)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The bytes of each token id."""
        return load_vocabulary(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_connection"}  # for another process

    def _repr_html_(self) -> str:
        counts = self.counts
        scored = f"{counts['scored_tokens']:,} of {counts['tokens']:,} tokens scored, context {self.context}"
        lines = [scored, f"stored in {shown_run(self.path)}", *self.notices]
        return to_html(f"run of {self.name} on {self.text_name}", [], lines)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        from lossprobe.run.database import new_database

        self.check()
        connection = new_database()
        for table in ALL_TABLES:
            if part_names(self.manifest["files"], table):  # a baseline leaves some out
                with self._reading():
                    connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {self.relation(table)}")
        return connection

    @cached_property
    def copies(self) -> Copies:
        """How many documents are identical to others; reading it defines the SQL function of `copies.NUMBERED`."""
        with self._reading():
            return number_texts(self._connection)

    def check(self) -> None:
        """Check the files of the run now, instead of at the first query.

        Raises:
            OutputError: a file is missing, damaged, or has other columns, rows or values than a run.
        """
        if self.checks is not None:
            self.checks.check()

    def relation(self, table: str) -> str:
        """Return SQL that reads a table of this run in a query of another one."""
        if self.held is not None:
            return read_parquet([str(self.held.path)])
        refuse_undecodable(self.path)
        folder = self.path.absolute()  # DuckDB gives paths that start with ~ or file: another meaning
        return read_parquet([str(folder / name) for name in part_names(self.manifest["files"], table)])

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn a damaged file into an `OutputError`, and a lack of memory into a `ResourceError`; bad SQL is kept."""
        from lossprobe.run.database import reading

        # A baseline has no run.json, and its file is held open.
        opened = telling_removed(self.path, self.manifest) if self.held is None else nullcontext()
        with opened, reading(self.path):
            yield

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """Return the result of a SQL query as a frame."""
        with self._reading():
            return self._connection.cursor().execute(sql, list(parameters)).df()

    def columns(self, sql: str, parameters: Sequence[object] = ()) -> PlainTable:
        """Return the result of a SQL query as plain columns, for which pandas is not loaded."""
        with self._reading():
            return PlainTable.of_arrays(self._connection.cursor().execute(sql, list(parameters)).fetchnumpy())

    def tokens(
        self, *, text: bool = False, columns: Sequence[str] | None = None, where: str | Sequence[str] = ()
    ) -> pd.DataFrame:
        r"""Return one row a token in text order, with the columns of `run.schema`.

        Args:
            text: add a column with the text of each token; bytes that are not UTF-8 are written as `\xe2`.
            columns: names of the columns to read; None for all of them.
            where: conditions on columns, such as "loss > 5 and context >= 32"; only rows that meet all are read.

        Raises:
            UsageError: a column is unknown, or a condition is not COLUMN SIGN NUMBER.
        """
        return token_rows(self, text, columns, where)

    def batches(
        self, sql: str, parameters: Sequence[object] = (), *, ahead: bool = True, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the result of a SQL query in Arrow batches, in bounded memory.

        Args:
            sql: the query.
            parameters: values of its placeholders.
            ahead: whether a thread reads the next batch meanwhile.
            rows: most rows of a batch; None for `BATCH_ROWS`.
        """
        stream = self._connection.cursor()  # its own, so that other queries can run between the batches
        with self._reading():
            batches = stream.sql(sql, params=list(parameters)).to_arrow_reader(BATCH_ROWS if rows is None else rows)
            yield from read_ahead(batches) if ahead else batches

    def scalar(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Return the single value of a SQL query."""
        with self._reading():
            row = self._connection.cursor().execute(sql, list(parameters)).fetchone()
        assert row is not None
        return row[0]

    def damaged_files(self) -> list[str]:
        """Return the names of the files that are missing or whose sha256 is not the one in run.json."""
        return FileChecks(self.path, self.manifest, sealed=True).damaged_files()


def open_run(path: Path | str) -> Run:
    """Return a complete run; its files are checked before the first query.

    Raises:
        UsageError: the path is not a run, such as a folder of several runs.
        OutputError: the run is unfinished, damaged, or of another schema version.
    """
    path = as_path("path", "the folder of a run", path)
    shown = shown_run(path)
    if not is_run(path):
        raise no_run(path, shown)
    try:
        with Folder.open(path) as folder:
            if folder.stat(MANIFEST) is None:
                raise unfinished(folder)
            manifest, sound = read_sealed(folder, MANIFEST)
            kind, version = manifest["kind"], manifest["schema"]
    except KeyError as error:
        raise damaged(path, f"{MANIFEST} is damaged: it has no {error}") from None
    except (OSError, ValueError) as error:
        raise damaged(path, f"{MANIFEST} is damaged: {visible(str(error), 80)}") from None
    if kind != KIND:
        raise damaged(path, f"{MANIFEST} is damaged: its kind is {visible(repr(kind), 40)}, not {KIND!r}")
    if version != SCHEMA_VERSION:
        what = f"{shown}: schema {visible(str(version), 20)}, this lossprobe reads {SCHEMA_VERSION}"
        raise OutputError("run.schema", what, hint="score again")
    if sound is False:
        raise damaged(path, f"{MANIFEST} is damaged or was edited: its sha256 is not the one that it names")
    fault = run_fault(manifest, sealed=bool(sound))
    if fault is not None:
        raise damaged(path, f"{MANIFEST} is damaged: {fault}")
    notices = () if sound else (f"{shown}: {UNSEALED}",)
    return Run(path, manifest, FileChecks(path, manifest, sealed=bool(sound)), notices)


def latest_run(folder: Path) -> Run:
    """Return the run that was last made or reused in a working folder.

    Raises:
        UsageError: no run was made there, or the latest one was removed.
        OutputError: the run, or the file that names it, is damaged or cannot be read.
    """
    path = folder / latest_path(folder / RUNS_FOLDER)
    try:
        there = is_run(path)
    except OSError:  # the path is too long, or a folder on it may not be read
        there = False
    if not there:
        raise UsageError(
            "run.missing", f"{shown_run(path)}: is no run any more (it was this folder's latest)",
            hint="name a run, or score again",
        )  # fmt: skip
    return open_run(path)
