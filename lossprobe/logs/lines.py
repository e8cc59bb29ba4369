"""Reads a log as blocks of whole lines: plain or gzip, UTF-8 or UTF-16, with what a terminal leaves in it removed."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lossprobe.errors import UsageError
from lossprobe.logs import commas
from lossprobe.units import format_count, mistyped_path, visible

BLOCK = 1 << 21  # bytes
LONGEST_LINE = 1 << 24  # bytes
STDIN = "-"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BEFORE = 1 << 12  # bytes of the last whole lines that are kept for comparison
LAST_NUMBER = re.compile(rb"[\d.eE+-]+$")
ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


@dataclass
class LogFile:
    """A log that can be read more than once.

    Attributes:
        path: the file as it was named.
        stream: its bytes, unpacked; seekable.
        notes: what was found while it was read, one line each.
        decimal_commas: whether `blocks` puts a point in place of each decimal comma.
    """

    path: Path
    stream: IO[bytes]
    notes: list[str] = field(default_factory=list)
    decimal_commas: bool = False

    @property
    def shown(self) -> str:
        """Return its name for messages; safe to print."""
        return visible(str(self.path), 200)

    def start(self, size: int = 1 << 16) -> bytes:
        """Return the first bytes, as they are."""
        self.stream.seek(0)
        return self._read(size)

    def beginning(self) -> bytes:
        """Return the first bytes in UTF-8, cleaned as in `blocks`; they may end in the middle of a line."""
        return _cleaned(next(self._pieces(), b""))

    def settle_commas(self) -> None:
        """Find out whether the losses of a text are written with decimal commas, and tell it."""
        self.decimal_commas = commas.in_text(self.beginning())
        self.notes += [commas.NOTE] if self.decimal_commas else []

    def whole(self, limit: int) -> bytes:
        """Return all bytes, in UTF-8.

        Raises:
            UsageError: more bytes than a limit.
        """
        data = b"".join(self._pieces(limit))
        if len(data) > limit:
            raise UsageError("log.unreadable", f"{self.shown}: larger than {format_count(limit)} bytes, the limit")
        return data.removeprefix(codecs.BOM_UTF8)

    def blocks(self) -> Iterator[bytes]:
        r"""Yield blocks of whole lines in UTF-8; every block ends in a line end.

        A last line without one that ends in a number is left out, unless the number is as long as that of the line
        before: it may have been cut, as "loss 4.2" of "loss 4.234". A carriage return ends a line too, as in a progress
        bar; NUL bytes and the sequences that move a cursor or choose a colour are left out.

        Raises:
            UsageError: a line of more than 16 MiB, or the file cannot be read.
        """
        rest = before = b""
        for piece in self._pieces():
            data = rest + piece
            end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            rest = data[end:]
            if len(rest) > LONGEST_LINE:
                raise UsageError(
                    "log.line", f"{self.shown}: a line of more than {format_count(LONGEST_LINE)} bytes, so it is no log"
                )
            if end:
                block = _cleaned(data[:end])
                before = block[-BEFORE:]
                yield self._read_as(block)
        if _is_cut(rest, before):
            self.notes.append("the last line has no end, so its number may have been cut: it is left out")
        elif rest:
            yield self._read_as(_cleaned(rest)) + b"\n"

    def _read_as(self, block: bytes) -> bytes:
        return commas.with_points(block) if self.decimal_commas else block

    def _pieces(self, limit: int | None = None) -> Iterator[bytes]:
        """Yield the content in UTF-8, without a byte-order mark; at most one piece more than a limit."""
        start = self.start(3)
        self.stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-16")("replace") if start[:2] in UTF16 else None
        if start == codecs.BOM_UTF8:
            self.stream.seek(3)
        read = 0
        while (limit is None or read <= limit) and (piece := self._read(BLOCK)):
            read += len(piece)
            yield decoder.decode(piece).encode() if decoder else piece

    def _read(self, size: int) -> bytes:
        try:
            return self.stream.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError("log.unreadable", f"{self.shown}: {visible(str(error), 120)}") from None


@contextmanager
def opened(path: Path) -> Iterator[LogFile]:
    """Open a log; standard input ("-") and pipes are first copied into a temporary file.

    Raises:
        UsageError: it cannot be read, or has no bytes.
    """
    shown = visible(str(path), 200)
    try:
        stream = _plain(path)
    except OSError as error:
        raise UsageError("log.unreadable", f"{shown}: {error.strerror}", hint=mistyped_path(str(path))) from None
    with stream:
        file = LogFile(path, stream)
        if file.start(2) == b"\x1f\x8b":
            stream.seek(0)
            file = LogFile(path, io.BufferedReader(gzip.GzipFile(fileobj=stream)))
        if not file.start(1):
            raise UsageError("log.empty", f"{shown}: is empty (0 bytes)")
        yield file


def _plain(path: Path) -> IO[bytes]:
    """Return an open file; of standard input or a pipe, which can be read only once, a copy."""
    if str(path) != STDIN and path.is_file():
        return path.open("rb")
    if str(path) == STDIN and (sys.stdin is None or sys.stdin.closed or sys.stdin.isatty()):
        raise UsageError("log.unreadable", "-: standard input is a terminal or closed; pipe a log into it")
    with nullcontext(sys.stdin.buffer) if str(path) == STDIN else path.open("rb") as stream:
        copy = tempfile.TemporaryFile(prefix="lossprobe-")  # noqa: SIM115 - the caller closes it
        shutil.copyfileobj(stream, copy)
    return copy


def _is_cut(rest: bytes, before: bytes) -> bool:
    """Return whether a last line without an end may have lost digits, from the lines before it."""
    end, ends = LAST_NUMBER.search(rest), [LAST_NUMBER.search(line) for line in before.split(b"\n") if line]
    if end is None or not ends:
        return False
    return ends[-1] is None or len(end[0]) != len(ends[-1][0])


def _cleaned(lines: bytes) -> bytes:
    if b"\0" in lines:
        lines = lines.replace(b"\0", b"")
    if b"\x1b" in lines:
        lines = ESCAPE.sub(b"", lines)
    return lines.replace(b"\r", b"\n") if b"\r" in lines else lines
