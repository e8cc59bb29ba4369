"""The command `lossprobe series`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.options import SERIES_BY, SeriesOptions
from lossprobe.cli.options import Outputs, Scoring, ViewCommand, declared_options, scoring_options, view_options
from lossprobe.cli.values import RunPath


@click.command(cls=ViewCommand, short_help="Checkpoints of one training: what was learned and forgotten.")
@click.argument("sources", nargs=-1, type=RunPath(), metavar="CHECKPOINT... TEXT... | FOLDER TEXT... | RUN...")
@declared_options(SeriesOptions)
@view_options
@scoring_options
def series(sources: tuple[Path, ...], outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """Follow the loss of a text over the checkpoints of a training run: what was learned, forgotten, or never learned.

    A FOLDER holds the checkpoints. They are put in the order of their steps. A checkpoint that is scored on this text
    already is not scored again.

    \b
    Examples:
      lossprobe series my-run data.txt --plot
      lossprobe series checkpoint-500 checkpoint-1000 data.txt --by class
      lossprobe series my-run data.txt --state forgotten
    """
    from lossprobe.analysis.series.series import measure_series
    from lossprobe.cli.checkpoints import find_series
    from lossprobe.cli.present import present
    from lossprobe.report.views.series import series_view

    options = SeriesOptions(**choices)
    runs, order = find_series(sources, scoring, None if options.by in SERIES_BY else options.by)
    present(series_view(runs, measure_series(runs, order, options)), outputs)
