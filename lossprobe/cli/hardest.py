"""The command `lossprobe hardest`."""

from __future__ import annotations

from pathlib import Path

import click

from lossprobe.analysis.options import HARDEST_BY, HardestOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="The hardest tokens, entries, documents and classes.")
@source_argument
@declared_options(HardestOptions)
@view_options
@scoring_options
def hardest(sources: tuple[Path, ...], by: str, top: int, min_count: int, outputs: Outputs, scoring: Scoring) -> None:
    """List the tokens with the highest loss and the text around them, or vocabulary entries, documents or classes.

    \b
    Examples:
      lossprobe hardest my-model data.txt
      lossprobe hardest --by type --top 30 --plot
    """
    from lossprobe.analysis.hardest import find_hardest
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.hardest import hardest_view

    run = find_run(sources, scoring, None if by in HARDEST_BY else by)
    present(hardest_view(run, find_hardest(run, by, top, min_count)), outputs)
