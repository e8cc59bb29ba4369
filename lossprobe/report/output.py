"""The only writer of results: a file (absent, old or new, never half), or standard output for `-`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.report.talk import say
from lossprobe.run.files import write_atomically
from lossprobe.units import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STDOUT = "-"
DPI = 150


def write_bytes(destination: str, pieces: Iterable[bytes]) -> None:
    """Write pieces of bytes to a file, or to standard output for `-`, as they come.

    Raises:
        OutputError: the file cannot be written; what stood there before is untouched.
    """
    if destination == STDOUT:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return

    def fill(target: Path) -> None:
        with target.open("wb") as stream:
            for piece in pieces:
                stream.write(piece)

    write_atomically(Path(destination), fill)
    say(f"wrote {visible(destination, 200)}")


def write_text(destination: str, text: str) -> None:
    """Write a text as UTF-8; errors as for `write_bytes`."""
    write_bytes(destination, [text.encode()])


def write_figure(destination: str, figure: Figure) -> None:
    """Write a figure as PNG, the same bytes for the same figure: no date and no version inside."""
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(destination, [sink.getvalue()])
