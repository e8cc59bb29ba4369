"""`lossprobe positions`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lossprobe.cli.options import Outputs, Scoring, ViewCommand, scoring_options, source_argument, view_options

if TYPE_CHECKING:
    from lossprobe.analysis.positions import PositionLosses


@click.command(cls=ViewCommand, short_help="Mean loss by the amount of context a token had.")
@source_argument
@click.option("--by", type=click.Choice(["context", "document-position"]), default="context",
              help="Tokens seen before predicting, or the place in the document.")  # fmt: skip
@click.option("--bins", type=click.Choice(["geometric", "every"]), default="geometric",
              help="1, 2-3, 4-7, ... or every position.")  # fmt: skip
@view_options
@scoring_options
def positions(sources: tuple[Path, ...], by: str, bins: str, outputs: Outputs, scoring: Scoring) -> None:
    """Mean loss by the amount of context a token had, with intervals.

    \b
    Examples:
      lossprobe positions my-model data.txt
      lossprobe positions --bins every --csv --plot
    """
    from lossprobe.analysis.positions import measure_positions
    from lossprobe.cli.present import View, present
    from lossprobe.cli.sources import find_run

    run = find_run(sources, scoring)
    result = measure_positions(run, by, bins)

    present(View("positions", run, result, lines=_fit_lines(result)), outputs)


def _fit_lines(result: PositionLosses) -> tuple[str, ...]:
    fit = result.fit
    if fit is None:
        return ()
    values = (
        ("a", fit.a_nats, fit.a_interval),
        ("b", fit.b_nats, fit.b_interval),
        ("alpha", fit.alpha, fit.alpha_interval),
    )
    text = ", ".join(f"{name} {value:.3f} [{low:.3f}, {high:.3f}]" for name, value, (low, high) in values)
    runs = f"{fit.residual_runs} runs of residuals, {fit.residual_runs_expected:.1f} expected of a good fit"
    return (f"descriptive fit a + b (t + 1)^-alpha: {text}; {runs}",)
