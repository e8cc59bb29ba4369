"""The command `lossprobe gap`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.options import Outputs, Scoring, ViewCommand, scoring_options, view_options
from lossprobe.cli.values import RunPath
from lossprobe.errors import UsageError

if TYPE_CHECKING:
    from lossprobe.run.reader import Run


@click.command(cls=ViewCommand, short_help="Train against validation loss: is the model over-fitted?")
@click.argument("sources", nargs=-1, type=RunPath(), metavar="CHECKPOINT TRAIN VAL | TRAIN_RUN VAL_RUN")
@view_options
@scoring_options
def gap(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring) -> None:
    """Measure how much lower a model's loss is on its training text than on held-out text: no gap, a gap, over-fitted.

    The gap is shown by class and frequency of the token, with the training documents that the model has memorised. Each
    text may be a sample of a larger one: a few hundred training documents are enough.

    \b
    Examples:
      lossprobe gap my-model train-sample.jsonl valid.jsonl --plot
      lossprobe gap my-model-train-sample my-model-valid
    """
    from lossprobe.analysis.gap.gap import measure_gap
    from lossprobe.cli.present import present
    from lossprobe.report.views.gap import gap_view

    train, validation = _find_pair(sources, scoring)
    present(gap_view(train, validation, measure_gap(train, validation)), outputs)


def _find_pair(sources: Sequence[Path], scoring: Scoring) -> tuple[Run, Run]:
    """Return the runs over the training and the validation text.

    Raises:
        UsageError: the sources are not two runs, or a checkpoint and two texts; or `-o` is given for two runs.
        LossprobeError: whatever scoring or opening a run raises.
    """
    from lossprobe.checkpoint.spec import Opener
    from lossprobe.cli.order import check_order
    from lossprobe.cli.sources import check_output, noticed, read_text, refuse_scoring_options, score_source
    from lossprobe.run.reader import open_run
    from lossprobe.run.run_folders import is_run
    from lossprobe.run.shown import shown_run

    runs = [path for path in sources if is_run(path)]
    if len(sources) == 2 and len(runs) == 2:
        refuse_scoring_options()
        return noticed(open_run(sources[0])), noticed(open_run(sources[1]))
    if len(sources) != 3 or runs:
        named = ", ".join(shown_run(path, 80) for path in sources) or "nothing"
        raise UsageError(
            "gap.sources",
            f"expected CHECKPOINT TRAIN VAL or TRAIN_RUN VAL_RUN, got {named} ({len(runs)} of {len(sources)} are runs)",
            hint="name the text that the checkpoint was trained on (or a sample of it) before the held-out one",
        )
    if scoring.output is not None:
        raise UsageError("output.several_runs", f"-o {shown_run(scoring.output)}: one place for several runs")
    check_order(sources[:1], sources[1:], scoring)
    check_output(sources[0], scoring.output)
    texts = [read_text([path], scoring) for path in sources[1:]]
    opener = Opener()  # one model for both texts
    train, validation = (score_source(sources[0], text, scoring, opener).run for text in texts)
    return train, validation
