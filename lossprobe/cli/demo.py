"""The command `lossprobe demo`."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.run.reader import Run

PAIR = ("jargon-plain", "jargon-smoothed")
TEXT = "jargon-valid.jsonl"
TRAINING = "train_series.py"
VIEWS = ("perplexity", "positions", "hardest", "tokens", "objectives")


@click.command(short_help="Score the bundled pair, train a small model, show every view.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("lossprobe-demo"),
    help="Folder for runs, CSV, PNG and the page.",
)
def demo(output: Path) -> None:
    """Score the bundled pair of checkpoints, show the main views, and follow the training of a small model.

    The pair is one small model trained twice on the Jargon File 4.0.0, without and with label smoothing 0.1. Another
    one is trained here on the same text, in half a minute, and its checkpoints are followed.

    \b
    Example:
      lossprobe demo
    """
    from lossprobe.cli.checkpoints import checkpoints_in
    from lossprobe.report.talk import say

    bundle = find_bundle()
    runs = []
    for name in PAIR:
        runs.append(_score(bundle / name, bundle / TEXT, output / "runs" / name))
        for view in VIEWS:
            _show(view, [runs[-1].path], output / name, table=name == PAIR[0])
    _show("calibration", [run.path for run in runs], output, table=True)
    trained = output / "training"
    train(bundle / TRAINING, trained)
    if "curve" in _commands().commands:
        _show("curve", [trained], output, table=True)
    series = [_score(each, bundle / TEXT, output / "runs" / each.name).path for each in checkpoints_in(trained)]
    _show("series", series, output, "--learned-below", "3", table=True)
    _run(["report", *(str(run.path) for run in runs), "-o", str(output / "report.html")])
    folder = visible(str(output), 200)
    say(f"CSV and PNG files are in {folder}; open {folder}/report.html, the difference of the pair as one page")


def train(script: Path, folder: Path, *options: str) -> None:
    """Train a small model in another process, which writes its checkpoints and its log into a folder; say how it goes.

    Raises:
        UsageError: it failed; the message has the last line of its error.
    """
    import subprocess

    from lossprobe.report.talk import say

    say("training a model of 0.27 M parameters, about half a minute")
    command = [sys.executable, str(script), "--output", str(folder), *options]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8") as process:
            assert process.stdout is not None
            for line in process.stdout:
                say(line.strip())
        if process.returncode:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise UsageError("demo.training", f"{visible(str(script), 200)}: failed: {visible(last, 200)}")


def _score(checkpoint: Path, text: Path, place: Path) -> Run:
    """Return the run of a checkpoint on the bundled text, stored at a place."""
    from lossprobe.checkpoint.detect import open_checkpoint
    from lossprobe.cli.progress import show_progress
    from lossprobe.passes.score import score
    from lossprobe.text.documents import open_text
    from lossprobe.text.options import TextOptions

    opened, source = open_checkpoint(checkpoint), open_text([text], TextOptions())
    with show_progress(f"scoring {checkpoint.name}", quiet=False) as progress:
        return score(opened, source, output=place, overwrite=True, progress=progress).run


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


def _commands() -> click.Group:
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    return group


def _show(view: str, sources: Sequence[Path], folder: Path, *options: str, table: bool) -> None:
    """Run the command of a view, writing its CSV and PNG to `folder`; print its table if `table`."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [view, *map(str, sources), *options]
    arguments += ["--csv", str(folder / f"{view}.csv"), "--plot", str(folder / f"{view}.png")]
    # Only the tables of the first model are printed; those of the second would hide them.
    with contextlib.nullcontext() if table else contextlib.redirect_stdout(io.StringIO()):
        _run([*arguments, *(["--table"] if table else [])])
    if table:
        click.echo()


def _run(arguments: list[str]) -> None:
    """Run a command of lossprobe, whatever its exit code says."""
    group = _commands()
    leaves = contextlib.suppress(click.exceptions.Exit)  # by which a command says its exit code
    with group.make_context("lossprobe", arguments) as context, leaves:
        group.invoke(context)
