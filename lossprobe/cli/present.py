"""How a view shows its result: terminal table, CSV, PNG or JSON, each where the user wants it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossprobe.cli.inputs import protect_files, protect_texts
from lossprobe.cli.options import Outputs, file_name
from lossprobe.errors import UsageError
from lossprobe.plan.windows import Layout
from lossprobe.report.talk import say
from lossprobe.units import visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from lossprobe.run.reader import Run

PIPE_COLUMNS = 160  # where nobody says how wide what reads the pipe is


@dataclass(frozen=True)
class View:
    """A result and the ways to show it.

    Attributes:
        command: the command's name, which names its files too.
        run: the run it is about.
        result: a frozen result with `.table` and `.finding`.
        csv: makes the CSV, piece by piece; None for that of `result.table`.
        lines: what stands below the terminal table, after the finding.
        left_out: columns that the terminal table leaves to the CSV.
        others: the runs that are shown beside it.
        shown: the table for people; None for `result.table`.
        more: further tables below the lines, each with its heading.
        inputs: texts that the run does not name, never to be written over.
    """

    command: str
    run: Run
    result: Any
    csv: Callable[[], Iterable[bytes]] | None = None
    lines: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    others: tuple[Run, ...] = ()
    shown: pd.DataFrame | None = None
    more: tuple[tuple[str, pd.DataFrame], ...] = ()
    inputs: tuple[Path, ...] = ()


def present(view: View, outputs: Outputs) -> None:
    """Show a view.

    On a terminal: the table and the finding. In a pipe: CSV on standard output (unless `--csv FILE`, `--json` or
    `--table` says otherwise) and the finding on standard error.

    Raises:
        UsageError: a file that is an input.
        OutputError: a file cannot be written.
    """
    from lossprobe.report.formats.output import STDOUT, write_bytes, write_figure, write_text
    from lossprobe.report.formats.tables import to_csv, to_json

    csv = file_name(outputs.csv, view.command, ".csv")
    plot = file_name(outputs.plot, view.command, ".png")
    for destination in (csv, plot):
        if destination is not None and destination != STDOUT:
            for run in (view.run, *view.others):
                protect_inputs(Path(destination), run, view.inputs)
    to_stdout = outputs.json or outputs.markdown or STDOUT in (csv, plot)
    table = outputs.table or (sys.stdout.isatty() and not to_stdout)
    if csv is None and not (to_stdout or table):
        csv = STDOUT
    if outputs.json:
        write_text(STDOUT, to_json(view.command, view.run, view.result))
    if table or outputs.markdown:
        write_text(STDOUT, _page(view, markdown=outputs.markdown))
    else:
        say(view.result.finding)
    if csv is not None:
        write_bytes(csv, view.csv() if view.csv is not None else [to_csv(view.result.table).encode()])
    if plot is not None:
        write_figure(plot, draw(view))


def protect_inputs(destination: Path, run: Run, inputs: Sequence[Path] = ()) -> None:
    """Refuse to write a result over what was read for a run (checkpoint, texts), or into a checkpoint or a run.

    Raises:
        UsageError: the destination is one of these.
    """
    shown = visible(str(destination), 200)
    target = destination.resolve()
    if run.path.resolve() in target.parents:
        raise UsageError("output.inside_run", f"{shown}: lies inside the run, which is never changed")
    protect_files([destination], run.inputs)
    if target.is_file():
        sources = run.query("SELECT DISTINCT source FROM documents")["source"]
        protect_texts([destination], [*map(Path, sources), *inputs])


def draw(view: View) -> Figure:
    """Return the view's picture: `report.plots.COMMAND.plot_COMMAND`."""
    module = importlib.import_module(f"lossprobe.report.plots.{view.command}")  # slow to load, and rarely needed
    from lossprobe.report.pictures import default_style

    with default_style():
        figure: Figure = getattr(module, f"plot_{view.command}")(view.run, view.result)
    return figure


def _page(view: View, *, markdown: bool) -> str:
    """Return the view for people: its table, the finding, what the command adds, the notes, and further tables."""
    from lossprobe.report.formats.markdown import to_markdown
    from lossprobe.report.formats.tables import to_terminal

    notes = [f"note: {note}" for note in getattr(view.result, "notes", [])]
    names = ", ".join(dict.fromkeys(run.name for run in (view.run, *view.others)))
    texts = ", ".join(dict.fromkeys(run.text_name for run in (view.run, *view.others)))
    layout = view.run.manifest["settings"]["windows"].get("layout", Layout.ROLLING)
    windows = "" if layout == Layout.ROLLING else f", windows {layout}"
    title = f"{view.command}: {names} on {texts} (context {view.run.context}{windows})"
    table = view.result.table if view.shown is None else view.shown
    table = table.drop(columns=[name for name in view.left_out if name in table])
    lines = [view.result.finding, *view.lines, *notes]
    pages = [(table, title, lines), *((frame, heading, []) for heading, frame in view.more)]
    if markdown:
        return "\n".join(to_markdown(*page) for page in pages)
    return "\n".join(to_terminal(*page, _width()).rstrip("\n") + "\n" for page in pages)


def _width() -> int | None:
    """Return the columns of the page; None for those of the terminal, or of `COLUMNS`, which rich reads."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else PIPE_COLUMNS
