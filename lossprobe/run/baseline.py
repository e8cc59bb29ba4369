"""A baseline: what a paired test needs of a run, small enough to commit. One folder, two files.

    BASELINE/tokens.parquet      keys and losses, a few bytes per token
    BASELINE/baseline.json       settings, counts and hashes of the run

Without texts, byte spans and vocabulary, a baseline tells little about a confidential text; its token ids remain.
Hashes show damage and careless edits. They are no signature: whoever can write both files can write anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe import __version__
from lossprobe.errors import NotComparableError
from lossprobe.run.files import atomic_target, sha256_of, sha256_of_json, write_json, writing
from lossprobe.run.reader import Run
from lossprobe.run.schema import SCHEMA_VERSION, TOKEN_COLUMNS, arrow_schema
from lossprobe.units import visible

MANIFEST = "baseline.json"
TOKENS = "tokens.parquet"
KIND = "lossprobe baseline"
KEYS = ("document", "token", "token_id", "unscored")
LOSS = "loss_nats"
MODEL_COLUMNS = (LOSS, "top_id", "top_prob", "sum_p2")  # what a metric can need of the model; only the first always
FLOATS = frozenset({"loss_nats", "top_prob", "sum_p2"})
MAKE = "make it with lossprobe baseline update"
UPDATE = "make it anew with lossprobe baseline update"


def write_baseline(run: Run, folder: Path, columns: Sequence[str] = (LOSS,)) -> None:
    """Write the baseline of a run; what stood there before stays whole until the new one does.

    Args:
        run: the run.
        folder: the baseline's own folder.
        columns: which of `MODEL_COLUMNS` to keep.

    Raises:
        OutputError: it cannot be written.
    """
    kept = [name for name in MODEL_COLUMNS if name == LOSS or name in columns]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with atomic_target(folder / TOKENS) as tokens:  # both are complete before either is put in place
        with _token_writer(tokens, [*KEYS, *kept]) as write:
            for batch in run.batches(f"SELECT {', '.join((*KEYS, *kept))} FROM tokens"):
                write(batch)
        content = {
            "kind": KIND,
            "schema": SCHEMA_VERSION,
            "lossprobe": __version__,
            "settings": run.manifest["settings"],
            "labels": run.manifest["labels"],
            "counts": {key: value for key, value in run.counts.items() if key != "unknown_text"},
            "columns": kept,
            "files": {TOKENS: sha256_of(tokens)},
        }
        write_json(folder / MANIFEST, {**content, "sha256": sha256_of_json(content)})


@contextmanager
def _token_writer(target: Path, names: Sequence[str]) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that writes a batch of rows: keys that repeat cost nothing, floats are split by byte."""
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
    """Return whether a folder holds a baseline, sound or not."""
    return (folder / MANIFEST).is_file()


def open_baseline(folder: Path) -> Run:
    """Return a baseline as a run with the table `tokens` and fewer columns, its hashes checked.

    Raises:
        NotComparableError: there is none, it is damaged or was edited, or is of another schema version.
    """
    shown = visible(str(folder), 200)
    if not is_baseline(folder):
        raise NotComparableError("baseline.missing", f"{shown}: no baseline here (no {MANIFEST})", hint=MAKE)
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        kind, version, digest = manifest["kind"], manifest["schema"], manifest.pop("sha256")
        sound = digest == sha256_of_json(manifest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(f"{shown}: {MANIFEST} cannot be read ({type(error).__name__})") from None
    if kind != KIND or version != SCHEMA_VERSION:
        found = visible(f"{kind} {version}", 40)
        raise NotComparableError(
            "baseline.schema", f"{shown}: is {found}, this lossprobe reads {KIND} {SCHEMA_VERSION}", hint=UPDATE
        )
    if not sound:
        raise _damaged(f"{shown}: {MANIFEST} was edited: its sha256 is not the one it names")
    if not _well_formed(manifest):
        raise _damaged(f"{shown}: {MANIFEST} is not what lossprobe writes")
    baseline = Run(folder, manifest)
    damaged = baseline.damaged_files()
    if damaged:
        raise _damaged(f"{shown}: {visible(damaged[0], 80)} is missing, damaged or edited (sha256 differs)")
    names = baseline.query("SELECT * FROM tokens LIMIT 0").columns.tolist()
    if names != [*KEYS, *manifest["columns"]]:
        raise _damaged(f"{shown}: {TOKENS} has other columns than {MANIFEST} says")
    return baseline


def _well_formed(manifest: dict[str, Any]) -> bool:
    """Return whether a manifest has the parts that are read later; names of columns and files go into SQL."""
    parts = [manifest.get(name) for name in ("settings", "labels", "counts")]
    settings, labels, counts = (part if isinstance(part, dict) else {} for part in parts)
    groups = (settings.get(name) for name in ("checkpoint", "tokenizer", "text", "windows", "versions"))
    columns, files = manifest.get("columns"), manifest.get("files")
    return (
        all(isinstance(group, dict) for group in groups)
        and isinstance(settings["checkpoint"].get("compute_dtype"), str)
        and all(isinstance(labels.get(name), str) for name in ("checkpoint", "text"))
        and all(type(counts.get(name)) is int for name in ("tokens", "scored_tokens", "documents"))
        and counts["tokens"] > 0
        and isinstance(columns, list)
        and columns == [name for name in MODEL_COLUMNS if name in columns]
        and LOSS in columns
        and isinstance(files, dict)
        and list(files) == [TOKENS]
        and isinstance(manifest.get("lossprobe"), str)
    )


def select_documents(baseline: Run, documents: Sequence[int], folder: Path) -> Run:
    """Return some documents of a baseline, copied into a folder and numbered from 0, in the order of the baseline.

    Args:
        baseline: from `open_baseline`.
        documents: their numbers, ascending.
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
    return Run(folder, {**baseline.manifest, "files": {TOKENS: ""}})


def _damaged(message: str) -> NotComparableError:
    return NotComparableError("baseline.damaged", message, hint=UPDATE)
