"""Finds the files of a path, and reads plain, gzip and piped input as bytes, up to a limit."""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from lossprobe import pointers
from lossprobe.errors import BadTextError, OutputError, TextError, UsageError
from lossprobe.objects.address import address_of
from lossprobe.text.folders import files_of_folder
from lossprobe.text.object_files import copied_objects
from lossprobe.text.selection import Selection
from lossprobe.units import format_count, mistyped_path, visible

CHUNK = 1 << 20
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"(\xb5/\xfd": "Zstandard",
    b"\xfd7zXZ\0": "xz",
    b"BZh91AY&SY": "bzip2",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "Arrow",  # a stream, as datasets saves it
    b"%PDF": "PDF",
}
PIPE = "lossprobe reads what it writes as -, of records with `data_kind`"
HINTS = {
    "gzip": "a gzip file is read when its name ends in .gz",
    "zip": "unpack it first",
    "Zstandard": f"unpack it first, for instance with zstd -dc: {PIPE}",
    "xz": f"unpack it first, for instance with xz -dc: {PIPE}",
    "bzip2": f"unpack it first, for instance with bzip2 -dc: {PIPE}",
    "Parquet": "a Parquet file is read when its name ends in .parquet",
    "Arrow": "write it as Parquet, for instance datasets.load_from_disk(FOLDER).to_parquet(FILE)",
}
STDIN = "-"
ALL_FILES = Selection()
Read = Callable[[int], bytes]


@dataclass
class Budget:
    """Counts the bytes that were read from all files together, and refuses more than a limit.

    Attributes:
        limit: `max_bytes` of the options.
        used: bytes read so far, decompressed.
    """

    limit: int
    used: int = 0

    @property
    def left(self) -> int:
        """Return the number of bytes that may still be read."""
        return self.limit - self.used

    def spend(self, size: int, shown: str) -> None:
        """Count `size` more bytes as read.

        Args:
            size: number of bytes.
            shown: name of the file in the message.

        Raises:
            TextError: more bytes than the limit were read.
        """
        self.used += size
        if self.used > self.limit:
            raise TextError(
                "text.too_large",
                f"{shown}: the text has more than {format_count(self.limit)} bytes (`max_bytes`)",
                hint="raise `max_bytes`",
            )


@dataclass(frozen=True)
class TextFile:
    """One file of a text source.

    Attributes:
        path: the file to open; a temporary copy for standard input and pipes, a local one of an object.
        name: name of the original file, "-" for standard input; its suffixes say which format it has.
        shown: name for messages; safe to print.
        copied: whether `path` is a temporary copy, made because the input could be read only once.
    """

    path: Path
    name: str
    shown: str
    copied: bool = False

    @property
    def stem(self) -> str:
        """Return the file's name without `.gz` and its last suffix; "stdin" for standard input."""
        return "stdin" if self.name == STDIN else Path(self.name.removesuffix(".gz")).stem

    @property
    def is_jsonl(self) -> bool:
        """Return whether the name ends in .jsonl or .ndjson (.gz): each line is a JSON record."""
        return self.name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))

    @property
    def is_json(self) -> bool:
        """Whether the name says that the file is one JSON value; some hold JSON Lines all the same."""
        return self.name.lower().removesuffix(".gz").endswith(".json")

    @property
    def is_parquet(self) -> bool:
        """Whether the name ends in .parquet: each row is a record."""
        return self.name.lower().endswith(".parquet")

    def read(self, budget: Budget) -> bytes:
        """Return the whole (decompressed) content.

        Raises:
            TextError: more bytes than the budget, damaged gzip, or a file of a known binary format.
        """
        pieces = []
        with self._open() as stream:
            while piece := self._next(stream.read, min(CHUNK, budget.left + 1)):
                pieces.append(piece)
                budget.spend(len(piece), self.shown)
        data = b"".join(pieces)
        self._check_magic(data)
        return data

    def lines(self, budget: Budget) -> Iterator[bytes]:
        """Yield the (decompressed) lines, one at a time in memory; errors are those of `read`."""
        first = True
        with self._open() as stream:
            while line := self._next(stream.readline, budget.left + 1):
                if first:
                    self._check_magic(line)
                    first = False
                budget.spend(len(line), self.shown)
                yield line

    def refuse_pointer(self) -> None:
        """Raise an error if the file stands for another one.

        Raises:
            BadTextError: it does.
            OSError: it cannot be read.
        """
        with self.path.open("rb") as stream:
            if stream.read(len(pointers.START)) == pointers.START:
                what = f"{self.shown}: is {pointers.WHAT}, not the text"
                raise BadTextError("text.not_text", what, hint=pointers.FETCH)

    def _open(self) -> IO[bytes]:
        try:
            self.refuse_pointer()
            if self.name.lower().endswith(".gz"):
                return io.BufferedReader(gzip.open(self.path, "rb"))
            return self.path.open("rb")
        except OSError as error:
            refuse_unreadable(self.shown, error)

    def _next(self, read: Read, size: int) -> bytes:
        try:
            return read(size)
        except (EOFError, OSError, zlib.error) as error:
            refuse_unreadable(self.shown, error)

    def _check_magic(self, data: bytes) -> None:
        for magic, kind in MAGIC.items():
            if data.startswith(magic):
                raise BadTextError("text.not_text", f"{self.shown}: looks like {kind}, not text", hint=HINTS.get(kind))


def refuse_unreadable(shown: str, error: Exception) -> NoReturn:
    """Raise a `TextError` with one line for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise BadTextError("text.unreadable", f"{shown}: cannot be read: {visible(reason, 120)}") from None


def find_files(
    path: Path,
    max_bytes: int,
    selection: Selection = ALL_FILES,
    *,
    follow_links: bool = False,
    notices: list[str] | None = None,
) -> list[TextFile]:
    """Return the files of a path: the file itself, every file below a folder that is not hidden, or standard input.

    Args:
        path: a file, folder, pipe or link, an address of object storage, or `-` for standard input.
        max_bytes: refuse standard input or a pipe with more bytes.
        selection: choice of the files of a folder.
        follow_links: follow links in a folder that lead out of it.
        notices: list to which one line is added for each kind of entry that is skipped or followed.

    Raises:
        UsageError: nothing there, an empty folder, or a terminal as input.
        TextError: a folder or pipe that cannot be read, or a pipe with more than `max_bytes`.
    """
    if str(path) == STDIN:
        if sys.stdin is None or sys.stdin.closed:
            raise UsageError("text.no_input", "-: standard input is closed")
        return [_copy(sys.stdin.buffer, STDIN, STDIN, max_bytes)]
    notices = [] if notices is None else notices
    address = address_of(path)
    if address is not None:
        objects = copied_objects(address, max_bytes, selection, notices)
        return [TextFile(file, each.key.rpartition("/")[2], visible(each.uri, 200)) for file, each in objects]
    shown = visible(str(path), 200)
    try:
        if path.is_dir():
            files = files_of_folder(path, selection, follow_links=follow_links, notices=notices)
            return [TextFile(file, file.name, visible(str(file), 200)) for file in files]
        if not path.exists():
            raise UsageError("text.missing", f"{shown}: does not exist", hint=mistyped_path(str(path)))
        if path.is_file():
            return [TextFile(path, path.name, shown)]
        with path.open("rb") as stream:  # a pipe or device can be read only once
            return [_copy(stream, path.name, shown, max_bytes)]
    except OSError as error:
        refuse_unreadable(shown, error)


def _copy(stream: IO[bytes], name: str, shown: str, max_bytes: int) -> TextFile:
    """Return a temporary copy of a stream, so that it can be read twice; it is deleted together with the `TextFile`."""
    if stream.isatty():
        raise UsageError("text.terminal", f"{shown}: is a terminal; pipe a text into it")
    spool = tempfile.NamedTemporaryFile(prefix="lossprobe-")  # noqa: SIM115 - lives as long as the source
    with ExitStack() as on_failure:
        on_failure.callback(spool.close)
        budget = Budget(max_bytes)
        while chunk := stream.read(CHUNK):
            budget.spend(len(chunk), shown)
            _store(spool, chunk)
        on_failure.pop_all()
    file = TextFile(Path(spool.name), name, shown, copied=True)
    weakref.finalize(file, spool.close)
    return file


def _store(spool: IO[bytes], chunk: bytes) -> None:
    try:
        spool.write(chunk)
        spool.flush()
    except OSError as error:
        folder = visible(tempfile.gettempdir(), 200)
        raise OutputError("output.write", f"{folder}: the input cannot be copied there: {error.strerror}") from None
