"""`lossprobe calibration`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.cli.options import Outputs, Real, Scoring, ViewCommand, scoring_options, sources_argument, view_options

if TYPE_CHECKING:
    import pandas as pd

    from lossprobe.analysis.calibration.calibration import Calibration, ModelCalibration


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
    from lossprobe.cli.present import View, present
    from lossprobe.cli.sources import find_runs
    from lossprobe.report.formats.side_by_side import side_by_side
    from lossprobe.report.formats.tables import to_csv

    runs = find_runs(sources, scoring)
    result = measure_calibration(runs, **choices)

    csv = result.bins if result.slices is None else result.slices
    view = View("calibration", runs[0], result, csv=lambda: [to_csv(csv).encode()], lines=_lines(result),
                others=tuple(runs[1:]), shown=side_by_side(result.table), more=_more(result))  # fmt: skip
    present(view, outputs)


def _lines(result: Calibration) -> tuple[str, ...]:
    """Return what stands below the table: each model's z, temperature and smoothing, and how intervals were made."""
    from lossprobe.analysis.calibration.measures import SMOOTH_RESAMPLES

    lines = [line for model in result.models for line in _model_lines(model)]
    resampled = f"{result.resamples} resamples where they are bootstrapped ({SMOOTH_RESAMPLES} for smooth_ece)"
    return (*lines, f"intervals: seed {result.seed}, {resampled}")


def _more(result: Calibration) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the further tables: the comparison with the first model, and the slices."""
    panel = result.smoothing
    tables = []
    if panel is not None:
        tables.append(("the same tokens, models against the first", panel.table))
        tables.append(("where the difference comes from, by the mean loss of both", panel.decomposition))
    if result.slices is not None:
        tables.append((f"by {result.by}", result.slices))
    return tuple(tables)


def _model_lines(model: ModelCalibration) -> list[str]:
    fit, gap, excess = model.temperature, model.measures["confidence_gap"], model.measures["nll_minus_entropy_nats"]
    lines = [
        f"{model.name}: z of the gap {_number(gap.z, '+.1f')} (design effect {_number(gap.design_effect, '.1f')}), "
        f"z of NLL − entropy {_number(excess.z, '+.1f')} (design effect {_number(excess.design_effect, '.1f')})"
    ]
    if fit.temperature is not None:
        low, high = fit.temperature_interval
        held_out = "held out" if fit.held_out else "in sample"
        changes = ", ".join(
            f"{row['measure']} {_number(row['before'], '.4f')} → {_number(row['after'], '.4f')}"
            for row in fit.table.to_dict("records")
        )
        lines.append(
            f"{model.name}: best temperature {fit.temperature:.4f} [{_number(low, '.4f')}, {_number(high, '.4f')}]; "
            f"{held_out}: {changes}"
        )
    lines.append(f"{model.name}: {model.effective_smoothing.finding}")
    return lines


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None or math.isnan(value) else format(value, form)
