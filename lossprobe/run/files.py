"""Writes and hashes files. A file is replaced in one step: it is missing, old or new, and never half written."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from lossprobe.errors import OutputError
from lossprobe.run.folder import Folder, NotFollowedError
from lossprobe.run.new_file import NewFile
from lossprobe.run.schema import Column, arrow_schema
from lossprobe.units import visible

OWN_HASH = "sha256"  # key of a JSON object's hash of the rest of it


@contextmanager
def writing(name: Path | str) -> Iterator[None]:
    """Turn a failure to write into an `OutputError` about `name`; a closed pipe stays a `BrokenPipeError`."""
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
    """Refuse a folder whose name is not UTF-8, since the libraries that read its files cannot open it.

    Raises:
        OutputError: the name is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = visible(str(path), 200)
        raise OutputError("run.name", f"{shown}: a run's folder needs a name in UTF-8", hint="rename it") from None


@contextmanager
def atomic_target(path: Path) -> Iterator[NewFile]:
    """Yield a new file to fill. If the block ends without an error the file replaces `path`, else it is removed.

    Temporary files of killed writers of the same path are removed.

    Raises:
        OutputError: the file cannot be written; an earlier file at `path` is unchanged.
    """
    folder = Folder(path.parent)
    with writing(path):
        folder.sweep(path.name)
        with folder.replace(path.name) as target:
            yield target


def json_bytes(content: dict[str, Any]) -> bytes:
    """Return an object as indented JSON with sorted keys; NaN raises ValueError."""
    return (json.dumps(content, indent=1, allow_nan=False, ensure_ascii=True) + "\n").encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as `json_bytes`."""
    with atomic_target(path) as target:
        target.write(json_bytes(content))


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return an object with a hash of its content, which `read_sealed` checks."""
    return {**content, OWN_HASH: sha256_of_json(content)}


class HasFiles(Protocol):
    """What has small files."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raise OSError where there is none."""


def read_sealed(folder: HasFiles, name: str) -> tuple[dict[str, Any], bool | None]:
    """Return a JSON object from a folder without its hash, and whether the hash is right (None without a hash).

    Raises:
        ValueError: the file cannot be read, or is not a JSON object.
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


def fill_table(
    target: NewFile, columns: tuple[Column, ...], values: dict[str, Any], rising: Collection[str] = ()
) -> None:
    """Write columns as one Parquet file, the same bytes for the same values.

    Args:
        target: the file.
        columns: its columns.
        values: name → values of each.
        rising: names of integer columns that rise most of the time. They are stored as differences, which takes less
            time and space; the file then has no statistics either.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq  # who only reads a run needs it not

    from lossprobe.run.plain_arrays import to_arrow

    schema = arrow_schema(columns)
    arrays = [to_arrow(values[column.name], column.type) for column in columns]
    table = pa.Table.from_arrays(arrays, schema=schema)
    if rising:
        differences = dict.fromkeys(rising, "DELTA_BINARY_PACKED")
        others = [name for name in schema.names if name not in rising]
        packing = {"column_encoding": differences, "use_dictionary": others, "write_statistics": False}
        pq.write_table(table, target, compression="zstd", **packing)
    else:
        pq.write_table(table, target, compression="zstd")


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
    """Return the sha256 of an open file from its present position to its end."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(content: dict[str, Any]) -> str:
    """Return the sha256 of an object, whatever the order of its keys.

    Raises:
        ValueError: the object has NaN or an infinity, which JSON does not have.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
