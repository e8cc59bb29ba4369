"""Standard output and standard error of a command, made safe for closed streams and for CI runners.

Failures to write results are errors. Failures to write messages to standard error (closed, full, or a pipe that nobody
reads) are ignored, so that they never decide how a command ends. CI runners (GitHub Actions and others) obey commands
in the output, so text from files is escaped where a runner would read it as a command.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# Environment variables set by runners that look for commands in the output.
READ_BY_RUNNERS = ("GITHUB_ACTIONS", "GITEA_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
# "::name::" at the start of a line, after characters that a runner may skip; "##[name]" and "##vso[name]" anywhere.
COMMAND = re.compile(
    rb"(?m)(^[^\x21-\x7e\r\n]*|\r[^\x21-\x7e\r\n]*):(?=:)|(#[^\x20-\x7e\r\n]*)#(?=[^\x20-\x7e\r\n]*\w*\[)"
)


def inert(text: bytes) -> bytes:
    r"""Return UTF-8 text in which no line is a command for a CI runner.

    One character of each command is replaced by its escape, `\u003a` or `\u0023`. Inside a JSON literal, as in the text
    columns of a CSV, the escape means the same character.

    >>> inert(b" ::error::x ::y\na ##[error]b, a::b")
    b' \\u003a:error::x ::y\na #\\u0023[error]b, a::b'
    """
    return COMMAND.sub(lambda found: found[1] + rb"\u003a" if found[1] is not None else found[2] + rb"\u0023", text)


class _Bytes(io.BufferedIOBase):
    """Binary layer of a standard stream that escapes commands for CI runners.

    Args:
        under: the original stream of `sys`, or None if it is closed.
        talk: ignore failures to write, as for messages on standard error.
    """

    def __init__(self, under: TextIO | None, *, talk: bool) -> None:
        self._under = under
        self._sink = None if under is None else under.buffer
        if talk:  # unbuffered, because Python fails at exit if it cannot write what is left in a buffer
            self._sink = getattr(self._sink, "raw", self._sink)
        self._lost: tuple[type[Exception], ...] = (OSError, ValueError) if talk else ()
        self._inert = any(map(os.environ.get, READ_BY_RUNNERS)) and not _is_file(under)
        self._line = b""  # an unfinished line, kept back until it can be searched for commands

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._under is not None and self._under.isatty()

    def fileno(self) -> int:
        if self._under is None:
            raise io.UnsupportedOperation("fileno")
        return self._under.fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self._inert:
            whole = self._line + bytes(data)
            end = max(whole.rfind(b"\n"), whole.rfind(b"\r")) + 1
            self._line = whole[end:]
            self.write_as_it_is(inert(whole[:end]))
        else:
            self.write_as_it_is(data)
        return size

    def write_as_it_is(self, data: ReadableBuffer) -> None:
        """Write bytes without escaping commands."""
        rest = memoryview(data).cast("B")
        with contextlib.suppress(*self._lost):
            while rest and self._sink is not None:
                rest = rest[self._sink.write(rest) or len(rest) :]  # an unbuffered stream may take only a part

    def flush(self) -> None:
        line, self._line = self._line, b""
        self.write_as_it_is(inert(line))
        if self._sink is not None:
            with contextlib.suppress(*self._lost):
                self._sink.flush()

    def close(self) -> None:
        """Do nothing, so that the original stream stays open."""


def _is_file(stream: TextIO | None) -> bool:
    """Return whether a stream is redirected to a regular file, which no runner reads."""
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    return False


@contextmanager
def prepared() -> Iterator[None]:
    """Replace standard output (as UTF-8) and standard error by safe streams inside the block."""
    before = sys.stdout, sys.stderr
    out, err = before
    if hasattr(out, "buffer"):
        sys.stdout = _text(out, talk=False, encoding="utf-8", errors="surrogateescape")
    if err is None or hasattr(err, "buffer"):
        encoding = getattr(err, "encoding", None) or "utf-8"
        sys.stderr = _text(err, talk=True, encoding=encoding, errors="backslashreplace")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _text(under: TextIO | None, *, talk: bool, **coding: Any) -> TextIO:
    stream: Any = _Bytes(under, talk=talk)
    return io.TextIOWrapper(stream, newline="\n", write_through=True, line_buffering=talk, **coding)


def say_to_runner(commands: Iterable[str], *, err: bool) -> None:
    """Print workflow commands of lossprobe for the CI runner, one a line and not escaped."""
    stream = sys.stderr if err else sys.stdout
    stream.flush()
    for command in commands:
        _raw(stream)(f"{command}\n".encode())
    stream.flush()


def _raw(stream: TextIO) -> Any:
    buffer = stream.buffer
    return buffer.write_as_it_is if isinstance(buffer, _Bytes) else buffer.write


def occupy_closed() -> None:
    """Open /dev/null for each of the file descriptors 0 to 2 that is closed.

    Otherwise the next file opened would get the descriptor, and printed text would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is `number`
