"""The command `lossprobe reconcile`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.options import ReconcileOptions, SearchOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    given_scoring_options,
    scoring_options,
    source_argument,
    view_options,
)
from lossprobe.errors import UsageError

if TYPE_CHECKING:
    from lossprobe.analysis.reconcile.logged_value import LoggedValue
    from lossprobe.analysis.reconcile.reconcile import Reconciliation
    from lossprobe.checkpoint.interface import Checkpoint
    from lossprobe.run.reader import Run

TRIED = {"--bos", "--score", "--stride", "--truncate", "--output", "--overwrite", "--dtype"}


@click.command(cls=ViewCommand, short_help="Which recipe gives the number in a training log?")
@source_argument
@declared_options(ReconcileOptions)
@view_options
@scoring_options
def reconcile(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **given: Any) -> None:
    """Say why a trainer logs another number: which recipe gives it, from batches to BOS, masks and packing.

    The number of digits matters: with few of them several recipes agree by chance, and how many would is told. A stored
    run answers for batches, denominators, processes, smoothing and units alone.

    \b
    Examples:
      lossprobe reconcile my-model valid.jsonl --logged 3.768
      lossprobe reconcile checkpoint-500 valid.jsonl --log trainer_state.json
      lossprobe reconcile --logged 3.768
    """
    from lossprobe.analysis.reconcile.logged_value import find_logged
    from lossprobe.analysis.reconcile.stored import reconcile_run
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.reconcile import reconcile_view

    options = ReconcileOptions(**given)
    if len(sources) > 1:
        logged = partial(find_logged, options, sources[0])
        run, result, inputs = reconcile_with_passes(sources, scoring, logged, options)
    else:
        run, inputs = find_run(sources, scoring), []
        result = reconcile_run(run, find_logged(options, Path(run.name)), options.order)
    present(reconcile_view(run, result, [*inputs, *([options.log] if options.log else [])]), outputs)


def reconcile_with_passes(
    sources: Sequence[Path], scoring: Scoring, logged: Callable[[], LoggedValue], options: SearchOptions
) -> tuple[Run, Reconciliation, list[Path]]:
    """Return the first run of a checkpoint on texts, what it and the further passes say, and the files of the texts.

    Args:
        sources: the checkpoint and the texts.
        scoring: how they are read and scored.
        logged: returns the number that was logged, once the sources are known to be there.
        options: how recipes are searched.

    Raises:
        UsageError: an option of scoring is given that the search tries by itself.
        LossprobeError: whatever opening the checkpoint or scoring raises.
    """
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.order import check_order
    from lossprobe.cli.progress import show_progress
    from lossprobe.cli.sources import check_output, load_checkpoint, read_text, say_notices
    from lossprobe.passes.known_text import KeptTokens
    from lossprobe.passes.reconcile import reconcile as reconcile_logged

    tried = TRIED.intersection(given_scoring_options(click.get_current_context()))
    if tried:
        raise UsageError("reconcile.option", f"{', '.join(sorted(tried))}: the search of recipes tries that by itself")
    check_order(sources[:1], sources[1:], scoring)
    check_output(sources[0], None)
    value = logged()
    source = read_text(sources[1:], scoring, tokens=KeptTokens())
    checkpoint = load_checkpoint(sources[0], scoring, Opener())

    def reopen(dtype: str) -> Checkpoint:
        return load_checkpoint(sources[0], replace(scoring, load=replace(scoring.load, dtype=dtype)), Opener())

    with show_progress(f"scoring {source.name}", quiet=scoring.quiet) as progress:
        run, result = reconcile_logged(
            value,
            checkpoint,
            source,
            scoring.score,
            deep=options.deep,
            order=options.order,
            reopen=reopen,
            progress=progress,
        )
    say_notices(checkpoint, source, scoring)
    return run, result, source.files
