"""`lossprobe calibration`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.cli.options import Outputs, Real, Scoring, ViewCommand, scoring_options, sources_argument, view_options


@click.command(cls=ViewCommand, short_help="How far the probabilities can be trusted; models side by side.")
@sources_argument
@click.option("--by", metavar="FIELD|document|context|class|frequency",
              help="The same for slices: a JSONL field, documents, amount of context, or kind and frequency of the "
              "first choice.")  # fmt: skip
@click.option("--smoothing", type=Real(0, 1, max_open=True), metavar="EPS",
              help="Label smoothing that the models after the first had in training, for the bound.")  # fmt: skip
@click.option("--allow-different", is_flag=True,
              help="Put runs side by side although text, tokenizer, windows or BOS differ.")  # fmt: skip
@view_options
@scoring_options
def calibration(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """How far a model's probabilities can be trusted: calibration errors, best temperature, label smoothing.

    Several models on one text stand side by side and are compared token by token with the first. --desmooth EPS scores
    each checkpoint a second time, de-smoothed. The CSV holds the bins of the diagrams, with --by the slices instead.

    \b
    Examples:
      lossprobe calibration plain smoothed data.txt --plot
      lossprobe calibration --by context
    """
    from lossprobe.analysis.calibration.calibration import measure_calibration
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_runs
    from lossprobe.report.views.calibration import calibration_view

    runs = find_runs(sources, scoring)
    present(calibration_view(runs, measure_calibration(runs, **choices)), outputs)
