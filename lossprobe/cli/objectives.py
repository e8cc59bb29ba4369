"""`lossprobe objectives`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.cli.options import Outputs, Real, Scoring, ViewCommand, scoring_options, source_argument, view_options
from lossprobe.units import plural

if TYPE_CHECKING:
    from lossprobe.analysis.objectives.objectives import Objectives


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
    from lossprobe.analysis.objectives.objectives import measure_objectives, objective_batches
    from lossprobe.cli.present import View, present
    from lossprobe.cli.sources import find_run
    from lossprobe.report.formats.tables import batches_to_csv

    options = ObjectiveOptions(**choices)
    run = find_run(sources, scoring)
    result = measure_objectives(run, options)

    csv = None if reduction == "all" else lambda: batches_to_csv(objective_batches(run, options))
    in_lines = tuple(f"mean_of_means_{size}" for size in options.micro_batch)
    present(View("objectives", run, result, csv=csv, lines=_lines(result), left_out=in_lines), outputs)


def _lines(result: Objectives) -> tuple[str, ...]:
    """Return what stands below the table: floors, log Z, micro-batches, float16."""
    at = f"eps {result.parameters.smoothing:.12g}, V {result.vocab_size:,}"
    batches = result.micro_batches[result.micro_batches["objective"] == "nll_nats"]
    lines = (
        f"floors at {at}: torch {result.smoothed_torch_floor_nats:.6f}, "
        f"fairseq {result.smoothed_fairseq_floor_nats:.6f} nats per token",
        f"log_z: mean square {result.mean_log_z2:.6g} nats², largest absolute value {result.max_abs_log_z:.6f} nats",
        *(
            f"micro-batches of {plural(row['windows'], 'window')} ({row['batches']:,}): mean of means of nll_nats "
            f"{row['mean_of_means']:.6f} = mean {row['mean']:.6f} - covariance term {row['covariance_term']:.6f}"
            for row in batches.to_dict("records")
        ),
    )
    known = result.half_precision is not None and bool(result.half_precision["l1_lost_share"].notna().any())
    return (*lines, _half_precision_line(result)) if known else lines


def _half_precision_line(result: Objectives) -> str:
    frame, scale = result.half_precision, result.recommended_loss_scale
    assert frame is not None
    plain, *rest = frame[frame["scale"].isin([1, scale])].to_dict("records")
    entries = f"{plain['entries_lost_share']:.2%} of its entries"
    text = f"fp16 without a loss scale loses {_lost(plain)} and {entries}"
    if scale is None:
        return text
    return f"{text}; with scale {scale:,}, the least that will do, {_lost(rest[0] if rest else plain)}"


def _lost(row: Mapping[Any, float]) -> str:
    return f"{row['l1_lost_share']:.2g} of the gradient's L1, {row['l2_lost']:.2g} of its L2"
