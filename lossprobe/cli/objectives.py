"""`lossprobe objectives`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lossprobe.cli.options import Outputs, Real, Scoring, ViewCommand, scoring_options, source_argument, view_options


class Numbers(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers, separated by commas; repeated ones count once."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers in the order given."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip() for part in parts):
            self.fail(f"{value!r}: expected whole numbers with commas between them", param, ctx)
        number: click.ParamType[Any] = click.IntRange(1, 1 << 31)
        return tuple(dict.fromkeys(int(number.convert(part, param, ctx)) for part in parts))


@click.command(cls=ViewCommand, short_help="The same tokens under smoothed, focal, ranking and z-loss.")
@source_argument
@click.option("--smoothing", type=Real(0, 1), default=0.1, metavar="EPS",
              help="Label smoothing, in both conventions.")  # fmt: skip
@click.option("--focal", type=Real(min=0), default=2.0, metavar="GAMMA", help="Focal loss.")
@click.option("--margin", type=Real(min=0), default=1.0, metavar="NATS",
              help="Ranking loss: margin that the token must have before the hardest other entry.")  # fmt: skip
@click.option("--z-weight", type=Real(min=0), default=1e-4, metavar="ALPHA", help="Weight of the z-loss.")
@click.option("--micro-batch", type=Numbers(), default="1,8", metavar="N[,N...]",
              help="Windows per micro-batch, for the mean of micro-batch means.")  # fmt: skip
@click.option("--batch-tokens", type=click.IntRange(1, 1 << 31), default=2048, metavar="N",
              help="Tokens of a batch under a mean loss, for what float16 gradients lose.")  # fmt: skip
@click.option("--reduction", type=click.Choice(["all", "none"]), default="all",
              help="The CSV: means and sums, or one row per token.")  # fmt: skip
@click.option("--where", multiple=True, metavar="CONDITION",
              help='Only tokens that meet it, such as "context >= 32".')  # fmt: skip
@click.option("--full-windows", is_flag=True, help="Only full windows, as trainers that drop the tail evaluate.")
@view_options
@scoring_options
def objectives(sources: tuple[Path, ...], reduction: str, outputs: Outputs, scoring: Scoring, **choices: Any) -> None:
    """The same tokens under the other losses that people train with, and what a training log would show.

    Label-smoothed in both conventions with parts and floor, focal, margin ranking, z-loss, gradient norms; means of
    micro-batch means; the loss scale that float16 gradients need.

    \b
    Examples:
      lossprobe objectives my-model data.txt --smoothing 0.1 --full-windows
      lossprobe objectives --reduction none --csv
    """
    from lossprobe.analysis.objectives.formulas import ObjectiveOptions
    from lossprobe.analysis.objectives.objectives import measure_objectives
    from lossprobe.cli.present import present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.views.objectives import objectives_view

    options = ObjectiveOptions(**choices)
    run = find_run(sources, scoring)
    present(objectives_view(run, measure_objectives(run, options), reduction), outputs)
