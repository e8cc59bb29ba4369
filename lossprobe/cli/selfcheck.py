"""The command `lossprobe selfcheck`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.options import SelfCheckOptions
from lossprobe.cli.options import Outputs, Scoring, ViewCommand, declared_options, scoring_options, view_options
from lossprobe.cli.workers import refuse_workers
from lossprobe.errors import UsageError

if TYPE_CHECKING:
    from lossprobe.checkpoint.interface import Checkpoint


@click.command(cls=ViewCommand, short_help="Does the loss depend on batches, threads and other details?")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TEXT...")
@declared_options(SelfCheckOptions)
@view_options
@scoring_options
def selfcheck(checkpoint: Path, texts: tuple[Path, ...], tokens: int, outputs: Outputs, scoring: Scoring) -> None:
    """Score a sample of a text in many ways, and check that the loss changes only where it may.

    It must not change with batch size, padding side, chunk size, threads, precision of the reductions, order of the
    documents, or when scored again; if it does, the exit code is 10. It may change with BOS, context, stride, half
    precision, and merging an adapter, and the table shows how much.

    \b
    Example:
      lossprobe selfcheck my-model data.txt
    """
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.order import check_order
    from lossprobe.cli.present import present
    from lossprobe.cli.progress import show_progress
    from lossprobe.cli.sources import check_output, load_checkpoint, read_text, say_notices
    from lossprobe.passes.selfcheck import run_selfcheck
    from lossprobe.report.views.selfcheck import selfcheck_view

    _refuse_output(scoring)
    refuse_workers(scoring.work, "selfcheck")
    check_order([checkpoint], texts, scoring)
    check_output(checkpoint, scoring.output)
    source = read_text(texts, scoring)
    opened = load_checkpoint(checkpoint, scoring, Opener())

    def reopen(**changed: Any) -> Checkpoint:
        return load_checkpoint(checkpoint, replace(scoring, load=replace(scoring.load, **changed)), Opener())

    with show_progress("checking", quiet=scoring.quiet, unit="checks") as progress:
        run, result = run_selfcheck(opened, source, scoring.score, reopen=reopen, tokens=tokens, progress=progress)
    say_notices(opened, source, scoring)
    present(selfcheck_view(run, result), outputs)
    raise click.exceptions.Exit(result.exit_code)


def _refuse_output(scoring: Scoring) -> None:
    """Refuse `-o` and `--overwrite`: selfcheck stores only the run of the sample, always in .lossprobe/.

    Raises:
        UsageError: one of them is given.
    """
    if scoring.overwrite:
        raise UsageError("selfcheck.output", "--overwrite: selfcheck stores only the run of the sample, in .lossprobe/")
    if scoring.output is not None:
        from lossprobe.run.shown import shown_run

        place = shown_run(scoring.output)
        raise UsageError("selfcheck.output", f"-o {place}: selfcheck stores only the run of the sample, in .lossprobe/")
