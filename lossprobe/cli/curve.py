"""The command `lossprobe curve`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.analysis.options import CurveOptions, SearchOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    given_scoring_options,
    scoring_options,
    view_options,
)
from lossprobe.cli.reconcile import reconcile_with_passes
from lossprobe.errors import UsageError
from lossprobe.logs.trainer_state import step_of
from lossprobe.options.declare import options_of

ALONE = {"--quiet"}  # of the options of scoring: it means something without a checkpoint

if TYPE_CHECKING:
    from lossprobe.analysis.curve.checkpoint_loss import CheckpointLoss
    from lossprobe.logs.log import Log
    from lossprobe.run.reader import Run


@click.command(cls=ViewCommand, short_help="Is a training run healthy? Its log says what went wrong.")
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LOG...")
@declared_options(CurveOptions)
@declared_options(SearchOptions)
@view_options
@scoring_options
def curve(logs: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **given: Any) -> None:
    """Say from its log whether a training run is healthy, and if not, what is wrong, why, and what to do.

    LOG is a trainer_state.json or a folder with checkpoints of a Trainer, a TensorBoard event file or a folder of them,
    a CSV or JSONL log, the output of nanoGPT, llm.c, Megatron and others, or - for standard input. Several logs are
    drawn into one picture, and it is told where two runs part.

    \b
    Examples:
      lossprobe curve trainer_state.json --plot
      lossprobe curve run-1.log run-2.log
      lossprobe curve metrics.csv --fail-on not-finite,over-fitting
      lossprobe curve out.txt --columns step=iter,loss=ce
      lossprobe curve log.json --checkpoint checkpoint-500 --text valid.jsonl
    """
    from lossprobe.analysis.curve.curve import curve as examine_logs
    from lossprobe.cli.present import present
    from lossprobe.logs.read import read_log
    from lossprobe.report.views.curve import curve_view

    search = SearchOptions(**{name: given.pop(name) for name in options_of(SearchOptions)})
    options = CurveOptions(**given)
    refuse_runs(logs)
    refuse_lone_options(logs, options, search)
    read = [read_log(path, options.columns) for path in logs]
    checked = check_against(read[0], options, search, scoring) if options.checkpoint else Checked()
    result = examine_logs(read, options, checked.vocabulary, checked.loss)
    present(curve_view(read, result, checked.runs, checked.inputs), outputs)
    sys.stdout.flush()  # now, while a closed pipe can still be told apart from a finding
    raise click.exceptions.Exit(result.exit_code)


@dataclass(frozen=True)
class Checked:
    """What a checkpoint says of a log: its vocabulary, its loss on the text, the run, the files of the text."""

    vocabulary: int | None = None
    loss: CheckpointLoss | None = None
    runs: tuple[Run, ...] = ()
    inputs: tuple[Path, ...] = ()


def refuse_runs(logs: Sequence[Path]) -> None:
    """Refuse a stored run in the place of a log.

    Raises:
        UsageError: one of the logs is a run.
    """
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.shown import shown_run

    for path in logs:
        if is_run(path):
            shown = shown_run(path)
            raise UsageError(
                "curve.run", f"{shown}: is a stored run of one checkpoint, no training log",
                hint=f"lossprobe tokens {shown} shows its losses; a trainer writes the log",
            )  # fmt: skip


def refuse_lone_options(logs: Sequence[Path], options: CurveOptions, search: SearchOptions) -> None:
    """Refuse a text without a checkpoint, a checkpoint beside several logs, and options of scoring without a text.

    Raises:
        UsageError: one of these is given.
    """
    if options.text is not None and options.checkpoint is None:
        raise UsageError("curve.checkpoint", "`text` without `checkpoint`", hint="name the checkpoint whose loss it is")
    if options.checkpoint is not None and len(logs) > 1:
        raise UsageError("curve.checkpoint", f"`checkpoint` and {len(logs)} logs: whose is it?", hint="name one log")
    scored = [each for each in given_scoring_options(click.get_current_context()) if each not in ALONE]
    scored += [f"`{name}`" for name, value in vars(search).items() if value != getattr(SearchOptions(), name)]
    if scored and options.text is None:
        raise UsageError(
            "curve.checkpoint", f"{', '.join(scored)}: without `text`, of which a checkpoint's loss is measured",
            hint="`checkpoint` and `text` name both",
        )  # fmt: skip


def check_against(log: Log, options: CurveOptions, search: SearchOptions, scoring: Scoring) -> Checked:
    """Return what a checkpoint says of a log; its loss is measured where a text is named, with the passes of reconcile.

    Raises:
        UsageError: the log has no validation loss at the checkpoint's step.
        LossprobeError: whatever opening the checkpoint or scoring raises.
    """
    from lossprobe.analysis.curve.checkpoint_loss import checkpoint_loss, logged_value, validation_loss_at
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.sources import load_checkpoint

    assert options.checkpoint is not None
    if options.text is None:
        return Checked(load_checkpoint(options.checkpoint, scoring, Opener()).facts.vocab_size)
    step = step_of(options.checkpoint) if search.step is None else search.step
    series, step = validation_loss_at(log, step, search.metric)
    logged = partial(logged_value, log, series, step)
    run, found, inputs = reconcile_with_passes([options.checkpoint, options.text], scoring, logged, search)
    loss = checkpoint_loss(run.name, run.text_name, found)
    return Checked(load_checkpoint(options.checkpoint, scoring, Opener()).facts.vocab_size, loss, (run,), tuple(inputs))
