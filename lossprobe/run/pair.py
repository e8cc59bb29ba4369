"""A stored pair: two runs of the same tokens, and for each token how far the predictions of their models are apart.

    PAIR/divergence/part-00000.parquet …         one row for each row of the runs' tokens, in the same parts
    PAIR/pair.json                               settings, and the sha256 of every other file and of itself

The rows hold no text and no vocabulary: those of the runs are beside them, row by row. A pair belongs to two runs by
their settings, and lies beside the first of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lossprobe.errors import OutputError
from lossprobe.run.checks import FileChecks
from lossprobe.run.files import read_sealed
from lossprobe.run.folder import Folder, folders_inside
from lossprobe.run.identity import Settings, identity_of
from lossprobe.run.manifest import damaged, is_count, part_name
from lossprobe.run.parquet import read_parquet
from lossprobe.run.planned_rows import part_rows
from lossprobe.run.reader import Run
from lossprobe.run.schema import DIVERGENCE, DIVERGENCES, PAIR, PAIR_PLAN, SCHEMA_VERSION
from lossprobe.units import visible

PAIR_KIND = "lossprobe pair"
DIVERGENCE_VERSION = "1"  # increase it when a fix changes stored numbers, so that pairs with the fault are not reused
REPLACE = "check it with lossprobe verify, or compare again with `overwrite`"


@dataclass(frozen=True)
class PairRows(Run):
    """The run whose windows a pair used, with the pair's columns and both first choices beside those of its `tokens`.

    SQL sees `kl_nats`, `same_top`, `target_prob_change`, `first_loss_nats`, `second_loss_nats`, and of the runs
    `first_top_id`, `second_top_id`, `first_run_loss_nats` and `second_run_loss_nats`, and the keys of the pair's own
    rows as `pair_document` and `pair_token`.
    """

    pair: Pair | None = field(default=None, repr=False)

    def check(self) -> None:
        """Check the files of both runs and of the pair; see `Run.check`."""
        assert self.pair is not None
        self.pair.check()

    def relation(self, table: str) -> str:
        """Return SQL that reads a table; rows of the three places are put side by side by their number."""
        own = super().relation(table)
        if table != "tokens" or self.pair is None:
            return own
        columns = ", ".join(f"pair.{column.name}" for column in DIVERGENCES)
        places = ("one", "other") if self.pair.planned is self.pair.first else ("other", "one")
        choices = ", ".join(
            f"{place}.top_id AS {name}_top_id, {place}.loss_nats AS {name}_run_loss_nats"
            for place, name in zip(places, NAMES, strict=True)
        )
        other = self.pair.second if self.pair.planned is self.pair.first else self.pair.first
        parts = read_parquet([str(self.pair.path.absolute() / name) for name in self.pair.files])
        return f"""(
            SELECT one.*, pair.document AS pair_document, pair.token AS pair_token, {columns}, {choices}
            FROM {own} AS one POSITIONAL JOIN {parts} AS pair POSITIONAL JOIN {other.relation("tokens")} AS other)"""


NAMES = ("first", "second")


@dataclass(frozen=True)
class Pair:
    """A complete pair; immutable.

    Attributes:
        path: its folder.
        manifest: the content of pair.json: `settings`, `labels`, `counts`, `part_rows` and `files`.
        first, second: the runs of model A and model B.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    first: Run
    second: Run

    @property
    def planned(self) -> Run:
        """The run whose windows both models were given."""
        return planned_run(self.first, self.second)

    @property
    def files(self) -> list[str]:
        """The names of its parts, in the order of their rows."""
        return [part_name(DIVERGENCE, index) for index in range(len(self.manifest["part_rows"]))]

    @cached_property
    def rows(self) -> PairRows:
        """The rows of its tokens, with text, places and labels; see `PairRows`."""
        planned = self.planned
        return PairRows(planned.path, planned.manifest, None, planned.notices, pair=self)

    def check(self) -> None:
        """Check the files of both runs and of the pair.

        Raises:
            OutputError: a file is missing, damaged, or has other columns or rows than a pair.
        """
        for run in (self.first, self.second):
            run.check()
        FileChecks(self.path, self.manifest, sealed=True, name=PAIR).check()


def pair_checks(path: Path) -> FileChecks:
    """Return what checks the files of a stored pair, without its runs.

    Raises:
        OutputError: its pair.json is damaged or missing.
    """
    return FileChecks(path, read_pair(path), sealed=True, name=PAIR)


def planned_run(first: Run, second: Run) -> Run:
    """Return the run with the smaller context, whose windows both models can take; the first one of equals."""
    return second if second.context < first.context else first


def pair_settings(first: Run, second: Run) -> Settings:
    """Return what makes two pairs the same: the identities of both runs, and the version of what is measured."""
    return {
        "first": identity_of(first.manifest),
        "second": identity_of(second.manifest),
        "divergence": {"version": DIVERGENCE_VERSION},
    }


def pair_labels(first: Run, second: Run) -> dict[str, str]:
    """Return the names of both models and of the text, for people."""
    return {"first": first.name, "second": second.name, "text": first.text_name}


def is_pair(path: Path) -> bool:
    """Return whether a path is the folder of a pair, complete or not, sound or damaged."""
    return path.is_dir() and any(os.path.lexists(path / name) for name in (PAIR, PAIR_PLAN))


def pair_folders(folder: Path) -> list[Path]:
    """Return the pairs directly inside a folder, sorted by path; empty if the folder is a link or cannot be read."""
    return folders_inside(folder, is_pair)


def open_pair(path: Path, first: Run, second: Run) -> Pair | None:
    """Return the complete pair of two runs in a folder, its files checked; None if it has none, or that of other runs.

    Raises:
        OutputError: it is damaged.
    """
    if not os.path.lexists(path / PAIR):
        return None
    manifest = read_pair(path)
    if manifest["settings"] != pair_settings(first, second):
        return None
    pair = Pair(path, manifest, first, second)
    if manifest["part_rows"] != part_rows(planned_run(first, second)):
        raise damaged(path, f"{PAIR} is damaged: part_rows are not those of the runs", REPLACE)
    for run in (first, second):
        run.check()
    try:
        pair.check()
    except OutputError as error:
        error.hint = REPLACE
        raise
    return pair


def read_pair(path: Path) -> dict[str, Any]:
    """Return the content of a pair.json after checking it.

    Raises:
        OutputError: it is unfinished or damaged, or of another schema version.
    """
    if not os.path.lexists(path / PAIR):
        shown = visible(str(path), 200)
        raise OutputError(
            "run.unfinished", f"{shown}: unfinished pair of runs", hint="repeat the compare command to resume it"
        )
    try:
        with Folder.open(path) as folder:
            manifest, sound = read_sealed(folder, PAIR)
    except (OSError, ValueError) as error:
        raise damaged(path, f"{PAIR} is damaged: {visible(str(error), 80)}", REPLACE) from None
    version = manifest.get("schema")
    if version != SCHEMA_VERSION and sound:
        shown = visible(str(path), 200)
        what = f"{shown}: schema {visible(str(version), 20)}, this lossprobe reads {SCHEMA_VERSION}"
        raise OutputError("run.schema", what, hint="compare again with `overwrite`")
    fault = None if sound else "its sha256 is not the one that it names"
    if fault := fault or _fault(manifest):
        raise damaged(path, f"{PAIR} is damaged: {fault}", REPLACE)
    return manifest


def _fault(manifest: dict[str, Any]) -> str | None:
    """Return what is wrong with the content of a pair.json; None if nothing is."""
    if manifest.get("kind") != PAIR_KIND:
        return f"its kind is {visible(repr(manifest.get('kind')), 40)}, not {PAIR_KIND!r}"
    groups = ("settings", "labels", "counts", "files")
    if not all(isinstance(manifest.get(name), dict) for name in groups):
        return f"one of {', '.join(groups)} is no object"
    rows, labels = manifest.get("part_rows"), manifest["labels"]
    if not isinstance(rows, list) or not all(map(is_count, rows)):
        return "part_rows is no list of counts"
    if not all(isinstance(labels.get(name), str) for name in (*NAMES, "text")):
        return "a label is no text"
    if not all(is_count(manifest["counts"].get(name)) for name in ("documents", "tokens", "scored_tokens")):
        return "a count is missing"
    if set(manifest["files"]) != {part_name(DIVERGENCE, index) for index in range(len(rows))}:
        return f"files does not name the {len(rows)} parts of {DIVERGENCE} once each"
    return None
