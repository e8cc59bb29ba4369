"""Text files as bytes: which files a path stands for, and bounded reading of plain, gzip and piped input."""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lossprobe.errors import TextError, UsageError
from lossprobe.units import format_count, visible

CHUNK = 1 << 20
MAGIC = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "Parquet", b"%PDF": "PDF"}


@dataclass(frozen=True)
class TextFile:
    """One file of a text source.

    Attributes:
        path: where its bytes are (a temporary copy for standard input).
        shown: how messages name it; safe to print.
    """

    path: Path
    shown: str

    @property
    def stem(self) -> str:
        """The file's name without `.gz` and its last suffix."""
        if self.shown == "-":
            return "stdin"
        return Path(self.path.name.removesuffix(".gz")).stem

    @property
    def is_jsonl(self) -> bool:
        """Whether the name says that each line is a JSON record."""
        return self.shown.removesuffix(".gz").endswith((".jsonl", ".ndjson"))

    def read(self, limit: int) -> bytes:
        """Return the whole (decompressed) content.

        Raises:
            TextError: more than `limit` bytes, damaged gzip, a file that is no text.
        """
        with self._open() as stream:
            try:
                data = stream.read(limit + 1)
            except (EOFError, OSError, zlib.error) as error:
                raise self._unreadable(error) from None
        self._check_limit(len(data), limit)
        self._check_magic(data)
        return data

    def lines(self, limit: int) -> Iterator[bytes]:
        """Yield the (decompressed) lines without holding the file in memory; errors as for `read`."""
        total = 0
        with self._open() as stream:
            while True:
                try:
                    line = stream.readline(limit - total + 1)
                except (EOFError, OSError, zlib.error) as error:
                    raise self._unreadable(error) from None
                if not line:
                    return
                if total == 0:
                    self._check_magic(line)
                total += len(line)
                self._check_limit(total, limit)
                yield line

    def _open(self) -> IO[bytes]:
        try:
            if self.path.suffix == ".gz":
                return io.BufferedReader(gzip.open(self.path, "rb"))
            return self.path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> TextError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return TextError("text.unreadable", f"{self.shown}: cannot be read: {visible(reason, 120)}")

    def _check_limit(self, size: int, limit: int) -> None:
        if size > limit:
            raise TextError(
                "text.too_large",
                f"{self.shown}: more than {format_count(limit)} bytes of text are left by --max-bytes",
                hint="raise --max-bytes",
            )

    def _check_magic(self, data: bytes) -> None:
        for magic, kind in MAGIC.items():
            if data.startswith(magic):
                hint = "a gzip file is read when its name ends in .gz" if kind == "gzip" else None
                raise TextError("text.not_text", f"{self.shown}: looks like {kind}, not text", hint=hint)


def find_files(path: Path, max_bytes: int) -> list[TextFile]:
    """Return the files that `path` stands for: itself, every visible file below a folder, or standard input.

    Raises:
        UsageError: nothing there, an empty folder, or a terminal as standard input.
        TextError: standard input over `max_bytes`.
    """
    if str(path) == "-":
        return [_spool(max_bytes)]
    shown = visible(str(path), 200)
    if path.is_dir():
        below = (entry for entry in path.rglob("*") if entry.is_file())
        files = sorted(entry for entry in below if not any(p.startswith(".") for p in entry.relative_to(path).parts))
        if not files:
            raise UsageError("text.empty_folder", f"{shown}: the folder holds no files")
        return [TextFile(entry, visible(str(entry), 200)) for entry in files]
    if not path.exists():
        raise UsageError("text.missing", f"{shown}: does not exist")
    if path.is_file():
        return [TextFile(path, shown)]
    with path.open("rb") as stream:  # a pipe or device can be read only once
        return [_copy(stream, shown, max_bytes)]


def _spool(max_bytes: int) -> TextFile:
    if sys.stdin.isatty():
        raise UsageError("text.terminal", "-: standard input is a terminal; pipe a text into it")
    return _copy(sys.stdin.buffer, "-", max_bytes)


def _copy(stream: IO[bytes], shown: str, max_bytes: int) -> TextFile:
    """Return a temporary copy of a stream, so that it can be read twice; it goes when the process ends."""
    spool = tempfile.NamedTemporaryFile(prefix="lossprobe-", suffix=".txt")  # noqa: SIM115 - lives as long as the source
    total = 0
    while chunk := stream.read(CHUNK):
        total += len(chunk)
        if total > max_bytes:
            raise TextError(
                "text.too_large",
                f"{shown}: more than {format_count(max_bytes)} bytes (--max-bytes)",
                hint="raise --max-bytes",
            )
        spool.write(chunk)
    spool.flush()
    return _SpooledFile(Path(spool.name), shown, spool)


@dataclass(frozen=True)
class _SpooledFile(TextFile):
    spool: object  # keeps the temporary file alive
