"""The command `lossprobe objectives`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.analysis.objectives.formulas import ObjectiveOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="Other losses of the same tokens: smoothed, focal, z-loss.")
@source_argument
@declared_options(ObjectiveOptions)
@click.option("--reduction", type=click.Choice(["all", "none"]), default="all",
              help="The CSV: means and sums, or one row per token.")  # fmt: skip
@view_options
@scoring_options
def objectives(sources: tuple[Path, ...], reduction: str, outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """Show the same tokens under other training losses, with the numbers that a training log would show.

    Label-smoothed loss in both conventions with its parts and floor, focal loss, margin ranking loss, z-loss, gradient
    norms, means of micro-batch means, and the loss scale that float16 gradients need.

    \b
    Examples:
      lossprobe objectives my-model data.txt --smoothing 0.1 --full-windows
      lossprobe objectives --reduction none --csv
    """
    from lossprobe.analysis.objectives.objectives import measure_objectives
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.objectives import objectives_view

    options = ObjectiveOptions(**choices)
    run = find_run(sources, scoring)
    present(objectives_view(run, measure_objectives(run, options), reduction), outputs)
