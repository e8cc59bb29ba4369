"""The command `lossprobe demo`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.run.reader import Run

PAIR = ("jargon-plain", "jargon-smoothed")
TEXT = "jargon-valid.jsonl"
VIEWS = ("perplexity", "positions", "hardest", "tokens", "objectives")


@click.command(short_help="Score the bundled pair and show every view.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("lossprobe-demo"),
    help="Folder for runs, CSV and PNG.",
)
def demo(output: Path) -> None:
    """Score the bundled pair of checkpoints, show the main views of the first, and compare the calibration of both.

    The pair is one small model trained twice on the Jargon File 4.0.0, without and with label smoothing 0.1.

    \b
    Example:
      lossprobe demo
    """
    from lossprobe.checkpoint.detect import open_checkpoint
    from lossprobe.cli.progress import show_progress
    from lossprobe.passes.score import score
    from lossprobe.report.talk import say
    from lossprobe.text.documents import open_text
    from lossprobe.text.options import TextOptions

    bundle = find_bundle()
    runs = []
    for name in PAIR:
        checkpoint = open_checkpoint(bundle / name)
        source = open_text([bundle / TEXT], TextOptions())
        with show_progress(f"scoring {name}", quiet=False) as progress:
            run = score(checkpoint, source, output=output / "runs" / name, overwrite=True, progress=progress).run
        for view in VIEWS:
            _show(view, [run], output / name, table=name == PAIR[0])
        runs.append(run)
    _show("calibration", runs, output, table=True)
    folder = visible(str(output), 200)
    say(f"CSV and PNG files are in {folder}; next: lossprobe hardest {folder}/runs/{PAIR[1]}")


def find_bundle() -> Path:
    """Return the folder of the bundled pair: in the installed package, or examples/ of a source checkout.

    Raises:
        UsageError: neither exists.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "bundled", package.parent / "examples"):
        if (folder / TEXT).is_file():
            return folder
    raise UsageError("demo.missing", "this installation holds no bundled example")


def _show(view: str, runs: list[Run], folder: Path, *, table: bool) -> None:
    """Run the command of a view on runs, writing its CSV and PNG to `folder`; print its table if `table`."""
    group = click.get_current_context().find_root().command
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [view, *(str(run.path) for run in runs)]
    arguments += ["--csv", str(folder / f"{view}.csv"), "--plot", str(folder / f"{view}.png")]
    # Only the tables of the first model are printed; those of the second would hide them.
    quiet = contextlib.nullcontext() if table else contextlib.redirect_stdout(io.StringIO())
    with quiet, group.make_context("lossprobe", [*arguments, *(["--table"] if table else [])]) as context:
        group.invoke(context)
    if table:
        click.echo()
