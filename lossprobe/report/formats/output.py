"""Writes results to files, or to standard output for `-`. A file is replaced as a whole, never left half written."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lossprobe.errors import OutputError
from lossprobe.report.talk import say
from lossprobe.run.files import atomic_target, writing
from lossprobe.units import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossprobe.run.new_file import NewFile

STDOUT = "-"
DPI = 150
# What matplotlib would write of itself and of the time, by format; None leaves it out.
METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
REPRODUCIBLE: dict[Any, Any] = {"svg.hashsalt": "lossprobe", "svg.fonttype": "path", "pdf.fonttype": 42}


def write_bytes(destination: str, pieces: Iterable[bytes]) -> None:
    """Write pieces of bytes to a file, or to standard output for `-`.

    A file is replaced only after all pieces are written. A device or pipe is written to directly.

    Raises:
        OutputError: the destination cannot be written (an old file is unchanged), or is a folder or a symbolic link.
        BrokenPipeError: the reader of standard output or of a pipe has closed it.
    """
    if destination == STDOUT:
        with writing("standard output"):
            _fill(sys.stdout.buffer, pieces)
        return
    path = Path(destination)
    with writing(destination):
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                _fill(stream, pieces)
        else:
            _refuse_link(path)
            with atomic_target(path) as target:
                _fill(target, pieces)
    say(f"wrote {visible(destination, 200)}")


def refuse_unwritable(destination: str, *, links: bool = True) -> None:
    """Refuse a destination that `write_bytes` could not write, before there is anything to write.

    Args:
        destination: the file, or `-`.
        links: refuse symbolic links too; else they pass, to be refused where it is known whether they lead to an input.

    Raises:
        OutputError: its folder does not exist or takes no new file; or it is a folder, a link, or a closed device.
    """
    if destination == STDOUT:
        return
    path = Path(destination)
    with writing(destination):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        if links:
            _refuse_link(path)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise OutputError("output.link", f"{visible(str(path), 200)}: is a symbolic link, which is never followed")


def _fill(stream: IO[bytes] | NewFile, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:  # with PYTHONUNBUFFERED, write takes only a part of a long piece
            rest = rest[stream.write(rest) :]
    stream.flush()


def write_text(destination: str, text: str) -> None:
    """Write a text as UTF-8; errors are those of `write_bytes`."""
    write_bytes(destination, [text.encode()])


def write_figure(destination: str, figure: Figure) -> None:
    """Write a figure as SVG or PDF where the name ends so, else as PNG; the same figure gives the same bytes.

    No file holds a date, a version or a path. Texts of an SVG are drawn as shapes, and a PDF holds its fonts, so that
    both look the same everywhere.
    """
    format_name = Path(destination).suffix.lower().removeprefix(".")
    write_bytes(destination, [figure_bytes(figure, format_name if format_name in METADATA else "png")])


def figure_bytes(figure: Figure, format_name: str) -> bytes:
    """Return a figure as the bytes of a file; see `write_figure`.

    Args:
        figure: the figure.
        format_name: "png", "svg" or "pdf".
    """
    from matplotlib import rc_context

    from lossprobe.report.pictures import default_style

    sink = io.BytesIO()
    with default_style(), rc_context(REPRODUCIBLE):
        figure.savefig(sink, format=format_name, dpi=DPI, metadata=METADATA[format_name])
    return _numbered_clips(sink.getvalue()) if format_name == "svg" else sink.getvalue()


def _numbered_clips(svg: bytes) -> bytes:
    """Return an SVG whose clip paths are named by their order.

    matplotlib 3.11 makes their names of more than what is drawn: some differ from one drawing to the next.
    """
    names = dict.fromkeys(re.findall(rb'<clipPath id="(\w+)"', svg))
    for number, name in enumerate(names):
        svg = svg.replace(b'id="%s"' % name, b'id="clip%d"' % number).replace(b"(#%s)" % name, b"(#clip%d)" % number)
    return svg


def append_bytes(destination: str, data: bytes) -> None:
    """Append bytes to a file that other programs also write, such as the summary of a CI job.

    Raises:
        OutputError: the file cannot be written.
    """
    with writing(destination), Path(destination).open("ab") as stream:
        stream.write(data)
    say(f"added to {visible(destination, 200)}")
