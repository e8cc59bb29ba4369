"""Standard output and standard error while a command runs: results arrive, or it says why; talk may be lost.

Standard error may be closed, full, or a pipe that nobody reads. What is said there never decides how a command ends.
Programs that run jobs (GitHub Actions and others) carry out commands that they find in what is printed: text that came
from a file must not be one.
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

# Each is set where the output is read by a program that looks for commands in it.
READ_BY_RUNNERS = ("GITHUB_ACTIONS", "GITEA_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")
# "::name::" at the start of a line, after what a reader may skip; "##[name]" and "##vso[name]" anywhere in it.
COMMAND = re.compile(
    rb"(?m)(^[^\x21-\x7e\r\n]*|\r[^\x21-\x7e\r\n]*):(?=:)|(#[^\x20-\x7e\r\n]*)#(?=[^\x20-\x7e\r\n]*\w*\[)"
)


def inert(text: bytes) -> bytes:
    r"""Return text in UTF-8 in which no line is a command for the program that runs a job.

    One character of each is written as its escape, `\u003a` or `\u0023`: inside a JSON literal, as in the text columns
    of a CSV, it still means the same.

    >>> inert(b" ::error::x ::y\na ##[error]b, a::b")
    b' \\u003a:error::x ::y\na #\\u0023[error]b, a::b'
    """
    return COMMAND.sub(lambda found: found[1] + rb"\u003a" if found[1] is not None else found[2] + rb"\u0023", text)


class _Bytes(io.BufferedIOBase):
    """The bytes of a standard stream.

    Args:
        under: the stream that stands in `sys`, or None where it is closed.
        talk: lose what cannot be written.
    """

    def __init__(self, under: TextIO | None, *, talk: bool) -> None:
        self._under = under
        self._sink = None if under is None else under.buffer
        if talk:  # nothing may wait in a buffer: Python writes that at its end, and fails if it cannot
            self._sink = getattr(self._sink, "raw", self._sink)
        self._lost: tuple[type[Exception], ...] = (OSError, ValueError) if talk else ()
        self._inert = any(map(os.environ.get, READ_BY_RUNNERS)) and not _is_file(under)
        self._line = b""  # the end of what came, while commands are looked for: half a line cannot be judged

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._under is not None and self._under.isatty()

    def fileno(self) -> int:
        if self._under is None:
            raise io.UnsupportedOperation("fileno")
        return self._under.fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        given = bytes(data)
        if self._inert:
            whole = self._line + given
            end = max(whole.rfind(b"\n"), whole.rfind(b"\r")) + 1
            self._line = whole[end:]
            self.write_as_it_is(inert(whole[:end]))
        else:
            self.write_as_it_is(given)
        return len(given)

    def write_as_it_is(self, data: bytes) -> None:
        """Write bytes that may hold commands: pictures, and commands of ours."""
        rest = memoryview(data)
        with contextlib.suppress(*self._lost):
            while rest and self._sink is not None:
                rest = rest[self._sink.write(rest) or len(rest) :]  # without a buffer, it may take only a part

    def flush(self) -> None:
        line, self._line = self._line, b""
        self.write_as_it_is(inert(line))
        if self._sink is not None:
            with contextlib.suppress(*self._lost):
                self._sink.flush()

    def close(self) -> None:
        """Leave the stream of `sys` open."""


def _is_file(stream: TextIO | None) -> bool:
    """Return whether a stream goes into a file, which holds data and is read by nobody now."""
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    return False


@contextmanager
def prepared() -> Iterator[None]:
    """Put our standard output (UTF-8, which tables and CSV are anyway) and standard error in place for the block."""
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
    """Print workflow commands of ours, one a line."""
    stream = sys.stderr if err else sys.stdout
    stream.flush()
    for command in commands:
        _raw(stream)(f"{command}\n".encode())
    stream.flush()


def _raw(stream: TextIO) -> Any:
    buffer = stream.buffer
    return buffer.write_as_it_is if isinstance(buffer, _Bytes) else buffer.write


def occupy_closed() -> None:
    """Let the numbers 0 to 2 belong to standard streams: whatever prints would write into a file that had one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
