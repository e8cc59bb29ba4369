"""The command `lossprobe positions`."""

from __future__ import annotations

from pathlib import Path

import click

from lossprobe.analysis.options import PositionOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="Mean loss by the amount of context a token had.")
@source_argument
@declared_options(PositionOptions)
@view_options
@scoring_options
def positions(sources: tuple[Path, ...], by: str, bins: str, outputs: Outputs, scoring: Scoring) -> None:
    """Show mean loss by the amount of context that a token had, with intervals.

    \b
    Examples:
      lossprobe positions my-model data.txt
      lossprobe positions --bins every --csv --plot
    """
    from lossprobe.analysis.positions import measure_positions
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.positions import positions_view

    run = find_run(sources, scoring)
    present(positions_view(run, measure_positions(run, by, bins)), outputs)
