"""Writing and hashing files so that each is absent, old or new, never half."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.errors import OutputError
from lossprobe.run.folder import Folder, NotFollowedError
from lossprobe.run.new_file import NewFile
from lossprobe.run.schema import Column, arrow_schema
from lossprobe.units import visible

OWN_HASH = "sha256"  # key of a JSON object's hash of the rest of it


@contextmanager
def writing(name: Path | str) -> Iterator[None]:
    """Turn a failure to write what `name` says, but for a reader that has gone, into an `OutputError` with one line."""
    shown = visible(str(name), 200)
    try:
        yield
    except BrokenPipeError:
        raise
    except NotFollowedError as error:
        inner = "" if str(name).endswith(str(error.filename)) else f"{visible(str(error.filename), 80)} "
        raise OutputError("output.link", f"{shown}: {inner}{error.strerror}") from None
    except OSError as error:
        reason = error.strerror or visible(str(error), 120)
        raise OutputError("output.write", f"{shown}: cannot be written: {reason}") from None


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


@contextmanager
def atomic_target(path: Path) -> Iterator[NewFile]:
    """Yield a new file, to be filled; put it in the place of `path` when the block ends well, else remove it.

    What killed writers of the same file left beside it is removed.

    Raises:
        OutputError: the file cannot be written; what stood there before is untouched.
    """
    folder = Folder(path.parent)
    with writing(path):
        folder.sweep(path.name)
        with folder.replace(path.name) as target:
            yield target


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return an object as indented JSON with a stable key order; NaN is a bug, not a value."""
    return (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=True) + "\n").encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as `json_bytes`."""
    with atomic_target(path) as target:
        target.write(json_bytes(content))


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object with the hash of all of it, which `read_sealed` checks."""
    return {**content, OWN_HASH: sha256_of_json(content)}


def read_sealed(folder: Folder, name: str) -> tuple[dict[str, Any], bool | None]:
    """Return a JSON object of a folder without its own hash, and whether that is right; None where it has none.

    Raises:
        ValueError: it cannot be read, or is no JSON object.
    """
    try:
        content = json.loads(folder.read(name))
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    except RecursionError:
        raise ValueError("too deeply nested") from None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    stated = content.pop(OWN_HASH, None)
    return content, None if stated is None else stated == sha256_of_json(content)


def fill_table(target: NewFile, columns: tuple[Column, ...], values: dict[str, Any]) -> None:
    """Write columns as one Parquet file, the same bytes for the same values."""
    schema = arrow_schema(columns)
    arrays = [pa.array(values[column.name], type=column.type) for column in columns]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), target, compression="zstd")


def write_table(path: Path, columns: tuple[Column, ...], values: dict[str, Any]) -> None:
    """Write columns as `fill_table`, to a path."""
    with atomic_target(path) as target:
        fill_table(target, columns, values)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_bytes(data: bytes) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_stream(stream: io.BufferedReader) -> str:
    """Return the sha256 of what is left of an open file."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: dict[str, Any]) -> str:
    """Return the sha256 of an object, whatever the order of its keys.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON does not know.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
