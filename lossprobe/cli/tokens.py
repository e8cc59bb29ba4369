"""The command `lossprobe tokens`."""

from __future__ import annotations

from pathlib import Path

import click

from lossprobe.analysis.options import TokenOptions
from lossprobe.cli.options import (
    Outputs,
    Scoring,
    ViewCommand,
    declared_options,
    scoring_options,
    source_argument,
    view_options,
)


@click.command(cls=ViewCommand, short_help="Every token with its text, context, loss, rank and entropy.")
@source_argument
@declared_options(TokenOptions)
@view_options
@scoring_options
def tokens(sources: tuple[Path, ...], where: tuple[str, ...], rows: int, outputs: Outputs, scoring: Scoring) -> None:
    """Show every token with its text, context, loss, rank, entropy and the model's first choice.

    \b
    Examples:
      lossprobe tokens my-model data.txt --csv
      lossprobe tokens --where "loss > 10" --plot
    """
    from lossprobe.analysis.tokens import measure_tokens
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.tokens import tokens_view
    from lossprobe.run.filters import where_sql

    where_sql(where)  # refuses what it cannot read, before a text is scored
    run = find_run(sources, scoring)
    present(tokens_view(run, measure_tokens(run, where, rows), where), outputs)
