"""`lossprobe selfcheck`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.analysis.options import SelfCheckOptions
from lossprobe.cli.options import Outputs, Scoring, ViewCommand, declared_options, scoring_options, view_options
from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import Checkpoint


@click.command(cls=ViewCommand, short_help="Does the number depend on what should not matter?")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TEXT...")
@declared_options(SelfCheckOptions)
@view_options
@scoring_options
def selfcheck(checkpoint: Path, texts: tuple[Path, ...], tokens: int, outputs: Outputs, scoring: Scoring) -> None:
    """Score a sample of a text in many ways: what must not move the loss, and how much what may move it does.

    Must not: batch size, padding side, chunk size, threads, precision of the reductions, order of the documents, and
    scoring it again. May: BOS, context, stride, half precision. Exit code 10 when an invariant is broken.

    \b
    Example:
      lossprobe selfcheck my-model data.txt
    """
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.present import present
    from lossprobe.cli.progress import show_progress
    from lossprobe.cli.sources import check_output, load_checkpoint, open_source, say_notices
    from lossprobe.passes.selfcheck import run_selfcheck
    from lossprobe.report.views.selfcheck import selfcheck_view

    _refuse_output(scoring)
    source = open_source(texts, scoring)
    check_output(checkpoint, scoring.output)
    opened = load_checkpoint(checkpoint, scoring, Opener())

    def reopen(dtype: str) -> Checkpoint:
        return load_checkpoint(checkpoint, replace(scoring, load=replace(scoring.load, dtype=dtype)), Opener())

    with show_progress("checking", quiet=scoring.quiet, unit="checks", at_once=True) as progress:
        run, result = run_selfcheck(opened, source, scoring.score, reopen=reopen, tokens=tokens, progress=progress)
    say_notices(opened, source, scoring)
    present(selfcheck_view(run, result), outputs)
    raise click.exceptions.Exit(result.exit_code)


def _refuse_output(scoring: Scoring) -> None:
    """Refuse options that say where a run goes: the only one that is stored has a place of its own.

    Raises:
        UsageError: one of them is given.
    """
    if scoring.overwrite:
        raise UsageError("selfcheck.output", "--overwrite: the one run that is stored has a name of its own")
    if scoring.output is not None:
        place = visible(str(scoring.output), 200)
        raise UsageError("selfcheck.output", f"-o {place}: the one run that is stored is that of the sample")
