"""Writes a view to standard output and files, and refuses to overwrite inputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.inputs import protect_files, protect_texts
from lossprobe.cli.options import Outputs
from lossprobe.cli.result_files import file_name
from lossprobe.cli.wording import view_with_options
from lossprobe.errors import UsageError
from lossprobe.report.talk import say
from lossprobe.units import plural, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossprobe.report.views.view import View
    from lossprobe.run.reader import Run

ALL_ROWS = "--csv writes all of them"
ALL_COLUMNS = "--wide shows them"
PIPE_COLUMNS = 160  # width of a table in a pipe


def present(view: View, outputs: Outputs) -> None:
    """Write a view as the options say.

    By default a terminal gets the tables, the finding and the notes. A pipe gets CSV on standard output; the finding
    and the notes go to standard error, unless --quiet is given.

    Raises:
        UsageError: a file to be written is an input.
        OutputError: a file cannot be written.
    """
    from lossprobe.report.formats.output import STDOUT, write_bytes, write_text

    view = view_with_options(view)
    csv = file_name(outputs.csv, view.name, ".csv")
    plot = file_name(outputs.plot, view.name, ".png")
    for destination in (csv, plot):
        if destination is not None and destination != STDOUT:
            protect_texts([Path(destination)], [*view.inputs, *(log.path for log in view.logs)])
            for run in view.runs:
                protect_inputs(Path(destination), run, view.inputs)
    to_stdout = outputs.json or outputs.markdown or STDOUT in (csv, plot)
    table = outputs.table or outputs.wide or (sys.stdout.isatty() and not to_stdout)
    if csv is None and not (to_stdout or table):
        csv = STDOUT
    if outputs.json:
        from lossprobe.report.formats.json import view_to_json

        write_bytes(STDOUT, view_to_json(view))
    if outputs.markdown:
        from lossprobe.report.formats.markdown import view_to_markdown

        write_text(STDOUT, view_to_markdown(view))
    elif table:
        from lossprobe.report.formats.terminal import Rest, view_to_terminal

        write_text(STDOUT, view_to_terminal(view, table_width(), Rest(ALL_ROWS, ALL_COLUMNS), wide=outputs.wide))
    else:
        _tell([view.result.finding] if outputs.json else view.told)
    if csv is not None:
        from lossprobe.report.formats.csv import view_to_csv

        write_bytes(csv, view_to_csv(view))
    if plot is not None:
        from lossprobe.report.formats.output import write_figure
        from lossprobe.report.views.view import draw

        figure = draw(view)
        write_figure(plot, figure)
        _tell(_codes_shown(figure))


def _codes_shown(figure: Figure) -> list[str]:
    """Return a note about characters that a picture shows by their codes, if there are any."""
    from lossprobe.report.fonts import shown_by_code

    missing = shown_by_code(figure)
    if not missing:
        return []
    code = missing[0].encode("unicode_escape").decode("ascii")
    return [
        f"note: no font here has {plural(len(missing), 'character')} of the picture, such as {missing[0]}: shown by "
        f"code, as {code}; install a font that has them (for Chinese, Japanese and Korean: Noto Sans CJK)"
    ]


def _tell(lines: Sequence[str]) -> None:
    """Write the finding and notes to standard error, unless --quiet is given."""
    if not click.get_current_context().params.get("quiet"):
        for line in lines:
            say(line)


def protect_inputs(destination: Path, run: Run, inputs: Sequence[Path] = ()) -> None:
    """Refuse to write a result over an input of a run (checkpoint or text), or into a checkpoint or run.

    Args:
        destination: the file to be written.
        run: the run that the result is about.
        inputs: other files that must not be overwritten.

    Raises:
        UsageError: the destination is an input, or lies in a checkpoint or run.
    """
    shown = visible(str(destination), 200)
    target = destination.resolve()
    if run.path.resolve() in target.parents:
        raise UsageError("output.inside_run", f"{shown}: lies inside the run, which is never changed")
    protect_files([destination], run.inputs)
    if target.is_file():
        sources = run.query("SELECT DISTINCT source FROM documents")["source"]
        protect_texts([destination], [*map(Path, sources), *inputs])


def table_width() -> int | None:
    """Return the width of tables: `PIPE_COLUMNS` in a pipe; None lets rich ask the terminal or `COLUMNS`."""
    return None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else PIPE_COLUMNS
