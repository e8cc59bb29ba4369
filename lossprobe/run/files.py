"""Writing and hashing files so that each is absent, old or new, never half."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.errors import OutputError
from lossprobe.run.schema import Column, arrow_schema
from lossprobe.units import visible

TEMPORARY = ".tmp"


@contextmanager
def writing(name: Path | str) -> Iterator[None]:
    """Turn a failure to write what `name` says, but for a reader that has gone, into an `OutputError` with one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or visible(str(error), 120)
        raise OutputError("output.write", f"{visible(str(name), 200)}: cannot be written: {reason}") from None


def refuse_undecodable(path: Path) -> None:
    """Refuse a run's folder whose name is no UTF-8, which the readers of its files do not take.

    Raises:
        OutputError: it is one.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = visible(str(path), 200)
        raise OutputError("run.name", f"{shown}: a run's folder needs a name in UTF-8", hint="rename it") from None


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, force it to disk, then put it in place.

    Raises:
        OutputError: the file cannot be written; what stood there before is untouched.
    """
    with atomic_target(path) as temporary:
        write(temporary)


@contextmanager
def atomic_target(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, to be filled; put it in place when the block ends well, else remove it.

    Raises:
        OutputError: the file cannot be written; what stood there before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with writing(path):
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)


def remove_temporary_files(folder: Path) -> None:
    """Remove what a killed process left half written anywhere below a folder that is locked by this one."""
    for file in folder.rglob(f".*{TEMPORARY}"):
        file.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # a directory cannot be opened there; replace is durable enough
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as indented JSON with a stable key order; NaN is a bug, not a value."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8 with LF line ends."""
    with atomic_target(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_table(path: Path, columns: tuple[Column, ...], values: dict[str, Any]) -> None:
    """Write columns as one Parquet file, the same bytes for the same values."""
    schema = arrow_schema(columns)
    arrays = [pa.array(values[column.name], type=column.type) for column in columns]
    table = pa.Table.from_arrays(arrays, schema=schema)
    write_atomically(path, lambda target: pq.write_table(table, target, compression="zstd"))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: dict[str, Any]) -> str:
    """Return the sha256 of an object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
