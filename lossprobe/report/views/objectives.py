"""Other losses on the same tokens: means and sums, floors, micro-batches, half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossprobe.analysis.objectives.objectives import Objectives, objective_batches
from lossprobe.report.formats.csv import batches_to_csv
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import plural

YIELDS = ("convention", "sum", "unit")


def objectives_view(run: Run, result: Objectives, reduction: str) -> View:
    """Return the view of a run's objectives; the CSV has one row per token where the reduction is "none"."""
    options = result.parameters
    csv = None if reduction == "all" else lambda: batches_to_csv(objective_batches(run, options))
    in_lines = tuple(f"mean_of_means_{size}" for size in options.micro_batch)
    more = () if result.load_balancing is None else (("load-balancing loss", result.load_balancing),)
    return view_of_runs("objectives", [run], result, csv=csv, lines=_lines(result), left_out=in_lines,
                        yields=YIELDS, more=more)  # fmt: skip


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
    if result.load_balancing is not None:
        lines += (_load_balancing_line(result),)
    known = result.half_precision is not None and bool(result.half_precision["l1_lost_share"].notna().any())
    return (*lines, _half_precision_line(result)) if known else lines


def _load_balancing_line(result: Objectives) -> str:
    assert result.load_balancing is not None
    whole = result.load_balancing.iloc[0]
    text = (
        f"load-balancing loss {whole['load_balancing_loss']:.6f} (E · Σ share of slots · mean probability; the number "
        "of experts per token where all are used alike)"
    )
    coefficient = result.load_balancing_coefficient
    if coefficient is None:
        return text
    added = f"; with the configuration's coefficient {coefficient:g} it adds {whole['weighted_nats']:.6f} nats"
    return f"{text}{added} where a trainer includes it"


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
