"""Baselines: the part of a run that a paired test needs, small enough to commit. A baseline is a folder with two files.

    BASELINE/tokens.parquet      keys and losses, a few bytes per token
    BASELINE/baseline.json       settings, counts and hashes of the run

A baseline has token ids, but no texts, byte spans or vocabulary, so it tells little about a confidential text. Of the
spans it has a hash, by which another tokenizer that gives the same tokens is known. Hashes
show damage and careless edits. They are no signature: whoever can write both files can write anything.

A baseline is replaced in one step. The new tokens are written as tokens-SHA256.parquet. Then baseline.json, which names
the tokens by their sha256, replaces the old one. Last, the new tokens are renamed to tokens.parquet; until then a
reader that finds other bytes in tokens.parquet looks for tokens-SHA256.parquet. If a writer is stopped at any point,
either the old baseline or the new one can be read.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe import __version__
from lossprobe.errors import NotComparableError
from lossprobe.run.files import read_sealed, sealed, sha256_of, sha256_of_stream, write_json, writing
from lossprobe.run.folder import Folder
from lossprobe.run.footers import read_footer
from lossprobe.run.held import HeldFile
from lossprobe.run.identity import measured_of
from lossprobe.run.new_file import NewFile
from lossprobe.run.reader import Run
from lossprobe.run.schema import SCHEMA_VERSION, TOKEN_COLUMNS, arrow_schema
from lossprobe.units import visible

BASELINE_FILE = "baseline.json"
TOKENS = "tokens.parquet"
PENDING = re.compile(r"tokens-([0-9a-f]{64})\.parquet")
STAGING = ".new"
KIND = "lossprobe baseline"
KEYS = ("document", "token", "token_id", "unscored")
LOSS_COLUMN = "loss_nats"
# What a metric can need of the model; only the loss is always kept.
MODEL_COLUMNS = (LOSS_COLUMN, "top_id", "top_prob", "sum_p2")
FLOATS = frozenset({"loss_nats", "top_prob", "sum_p2"})
MAKE = "make it with lossprobe baseline update"
UPDATE = "make it anew with lossprobe baseline update"
FORCE = "make it anew with lossprobe baseline update --force, which accepts the model without a comparison"


def write_baseline(run: Run, folder: Path, columns: Sequence[str] = (LOSS_COLUMN,)) -> None:
    """Write the baseline of a run; an earlier baseline there stays readable until the new one is.

    Args:
        run: the run.
        folder: folder of the baseline.
        columns: which of `MODEL_COLUMNS` to keep.

    Raises:
        OutputError: it cannot be written.
    """
    kept = [name for name in MODEL_COLUMNS if name == LOSS_COLUMN or name in columns]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Folder.open(folder, follow=False) as opened:
            opened.lock()  # one writer at a time, so that the clean-up at the end removes no file of another writer
            with _staging(opened) as staging:
                digest = _write_tokens(run, staging, [*KEYS, *kept])
                content = {
                    "kind": KIND,
                    "schema": SCHEMA_VERSION,
                    "lossprobe": __version__,
                    "settings": run.manifest["settings"],
                    "measured": measured_of(run.manifest),
                    "labels": run.manifest["labels"],
                    "tokens_sha256": run.tokens_sha256,
                    "counts": {key: value for key, value in run.counts.items() if key != "unknown_text"},
                    "columns": kept,
                    "files": {TOKENS: digest},
                }
                write_json(staging.path / BASELINE_FILE, sealed(content))
                staging.rename(TOKENS, opened, _pending(digest))
                staging.rename(BASELINE_FILE, opened, BASELINE_FILE)  # the step
            opened.rename(_pending(digest), opened, TOKENS)
            for name in opened.names():  # files of writers that were stopped
                if PENDING.fullmatch(name):
                    opened.remove(name)


@contextmanager
def _staging(folder: Folder) -> Iterator[Folder]:
    """Yield a folder for files that are being written, which git ignores."""
    folder.remove(STAGING)
    try:
        with folder.folder(STAGING, make=True) as staging:
            staging.create(".gitignore", b"*\n")
            yield staging
    finally:
        folder.remove(STAGING)


def _write_tokens(run: Run, folder: Folder, names: Sequence[str]) -> str:
    """Write some columns of a run's tokens, read them back, and return their sha256."""
    with folder.replace(TOKENS) as target, _token_writer(target, names) as write:
        for batch in run.batches(f"SELECT {', '.join(names)} FROM tokens"):
            write(batch)
    if sha256_of(folder.path / TOKENS) != target.sha256:
        raise OSError(errno.EIO, "other bytes were read back than had been written")
    return target.sha256


def _pending(digest: str) -> str:
    return f"tokens-{digest}.parquet"


@contextmanager
def _token_writer(target: Path | NewFile, names: Sequence[str]) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that writes batches of rows: keys dictionary-encoded, floats split by byte."""
    stored = {column.name: column for column in TOKEN_COLUMNS}
    schema = arrow_schema(tuple(stored[name] for name in names))
    encodings = {name: "BYTE_STREAM_SPLIT" for name in names if name in FLOATS} | {"token": "DELTA_BINARY_PACKED"}
    plain = [name for name in names if name not in encodings]
    with pq.ParquetWriter(
        target, schema, compression="zstd", compression_level=9, column_encoding=encodings, use_dictionary=plain
    ) as writer:

        def write(batch: pa.RecordBatch) -> None:
            arrays = [batch.column(name).cast(schema.field(name).type) for name in names]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write


def is_baseline(folder: Path) -> bool:
    """Return whether a folder has a baseline, complete or damaged."""
    return any(os.path.lexists(folder / name) for name in (BASELINE_FILE, TOKENS))


def open_baseline(folder: Path) -> Run:
    """Return a baseline as a run with the table `tokens` and fewer columns, its hashes checked.

    It stays readable while it is used, even if a writer replaces it.

    Raises:
        NotComparableError: no baseline is there, it is damaged or edited, or it has another schema version.
    """
    shown = visible(str(folder), 200)
    if not os.path.lexists(folder / BASELINE_FILE):
        hint = FORCE if is_baseline(folder) else MAKE
        raise NotComparableError("baseline.missing", f"{shown}: no baseline here (no {BASELINE_FILE})", hint=hint)
    try:
        with Folder.open(folder) as opened:
            manifest = _read_manifest(opened, shown)
            found = _intact_tokens(opened, manifest, shown)
            while found is None:  # a writer may have put a new one in place since
                again = _read_manifest(opened, shown)
                if again == manifest:
                    raise _damaged(f"{shown}: {TOKENS} is missing, damaged or edited (sha256 differs)")
                manifest, found = again, _intact_tokens(opened, again, shown)
    except OSError as error:
        raise _damaged(f"{shown}: cannot be read: {error.strerror}") from None
    name, held = found
    return Run(folder, {**manifest, "files": {name: manifest["files"][TOKENS]}}, held=held)


def _read_manifest(folder: Folder, shown: str) -> dict[str, Any]:
    """Return the content of baseline.json after checking all of it."""
    try:
        manifest, sound = read_sealed(folder, BASELINE_FILE)
        kind, version = manifest["kind"], manifest["schema"]
    except KeyError as error:
        raise _damaged(f"{shown}: {BASELINE_FILE} cannot be read (no {error})") from None
    except ValueError as error:
        raise _damaged(f"{shown}: {BASELINE_FILE} cannot be read ({visible(str(error), 80)})") from None
    if kind != KIND or version != SCHEMA_VERSION:
        found = visible(f"{kind} {version}", 40)
        raise NotComparableError(
            "baseline.schema", f"{shown}: is {found}, this lossprobe reads {KIND} {SCHEMA_VERSION}", hint=FORCE
        )
    if sound is None:
        raise _damaged(f"{shown}: {BASELINE_FILE} cannot be read (no sha256 of its own)")
    if not sound:
        raise _damaged(f"{shown}: {BASELINE_FILE} was edited: its sha256 is not the one it names")
    if not _well_formed(manifest):
        raise _damaged(f"{shown}: {BASELINE_FILE} is not what lossprobe writes")
    return manifest


def _intact_tokens(folder: Folder, manifest: dict[str, Any], shown: str) -> tuple[str, HeldFile | None] | None:
    """Return the tokens file whose sha256 the manifest names, after checking its rows; None if there is none.

    The file is kept open: before the first query, which comes after scoring, its name may belong to another file.
    """
    digest = manifest["files"][TOKENS]
    for name in (TOKENS, _pending(digest), TOKENS):  # in the order in which a writer moves them, and once more
        with contextlib.suppress(FileNotFoundError), folder.open_file(name) as stream:
            if sha256_of_stream(stream) == digest:
                stream.seek(0)  # the same file, whatever a writer makes of its name meanwhile
                _check_rows(stream, name, manifest, shown)
                return name, HeldFile.of(stream.fileno())
    return None


def _check_rows(stream: io.BufferedReader, name: str, manifest: dict[str, Any], shown: str) -> None:
    """Refuse a file with other columns or another number of rows than a manifest says."""
    try:
        rows = read_footer(stream, "tokens", [*KEYS, *manifest["columns"]]).num_rows
    except ValueError as error:
        raise _damaged(f"{shown}: {name} has other columns than {BASELINE_FILE} says: it {error}") from None
    if rows != manifest["counts"]["tokens"]:
        raise _damaged(f"{shown}: {name} holds {rows:,} rows, {BASELINE_FILE} says {manifest['counts']['tokens']:,}")


def _well_formed(manifest: dict[str, Any]) -> bool:
    """Return whether a manifest has all the parts that are read later, including column and file names used in SQL."""
    parts = [manifest.get(name) for name in ("settings", "labels", "counts")]
    settings, labels, counts = (part if isinstance(part, dict) else {} for part in parts)
    groups = (settings.get(name) for name in ("checkpoint", "tokenizer", "text", "windows", "versions"))
    columns, files = manifest.get("columns"), manifest.get("files")
    return (
        all(isinstance(group, dict) for group in (*groups, manifest.get("measured", {})))
        and isinstance(settings["checkpoint"].get("compute_dtype"), str)
        and all(isinstance(labels.get(name), str) for name in ("checkpoint", "text"))
        and all(type(counts.get(name)) is int for name in ("tokens", "scored_tokens", "documents"))
        and counts["tokens"] > 0
        and isinstance(columns, list)
        and columns == [name for name in MODEL_COLUMNS if name in columns]
        and LOSS_COLUMN in columns
        and isinstance(files, dict)
        and list(files) == [TOKENS]
        and PENDING.fullmatch(_pending(str(files[TOKENS]))) is not None
        and isinstance(manifest.get("lossprobe"), str)
    )


def select_documents(baseline: Run, documents: Sequence[int], folder: Path) -> Run:
    """Copy some documents of a baseline into a folder, numbered from 0 in the same order, and return them as a run.

    Args:
        baseline: from `open_baseline`.
        documents: numbers of the documents, ascending.
        folder: an existing folder of its own.
    """
    chosen = np.asarray(documents, np.int32)
    names = [*KEYS, *baseline.manifest["columns"]]
    with _token_writer(folder / TOKENS, names) as write:
        for batch in baseline.batches(f"SELECT {', '.join(names)} FROM tokens"):
            numbers = batch.column("document").to_numpy()
            kept = batch.filter(pa.array(np.isin(numbers, chosen)))
            renumbered = np.searchsorted(chosen, kept.column("document").to_numpy()).astype(np.int32)
            write(kept.set_column(0, "document", pa.array(renumbered)))
    return Run(folder, {**baseline.manifest, "tokens_sha256": "", "files": {TOKENS: ""}})


def _damaged(message: str) -> NotComparableError:
    return NotComparableError("baseline.damaged", message, hint=FORCE)
