"""Calibration of models side by side, their comparison with the first, and slices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from lossprobe.analysis.calibration.calibration import Calibration, ModelCalibration
from lossprobe.analysis.calibration.measures import SMOOTH_RESAMPLES
from lossprobe.report.formats.csv import to_csv
from lossprobe.report.formats.side_by_side import side_by_side
from lossprobe.report.views.places import split_places, without_empty_ends
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

YIELDS = (
    "conditioned_on", "excess_z", "ece_noise_floor", "brier", "clusters", "gap_z", "nll_minus_entropy_nats",
    "share_of_tokens", "mean_confidence", "contribution_nats", "unit", "ece", "mean_loss_nats", "low", "high",
)  # fmt: skip


def calibration_view(runs: Sequence[Run], result: Calibration) -> View:
    """Return the view of a calibration; the CSV holds the bins of the diagrams, or the slices where there are any."""
    shown = side_by_side(result.table)
    csv = result.bins if result.slices is None else result.slices
    return view_of_runs("calibration", runs, result, csv=lambda: [to_csv(csv).encode()], lines=_lines(result),
                        shown=shown, more=_more(result), findings=tuple(result.findings),
                        yields=(*_yields(result.slices), *reversed(shown.columns[2:])))  # fmt: skip


def _yields(slices: pd.DataFrame | None) -> tuple[str, ...]:
    first, last = split_places(slices)
    if slices is not None and slices["low"].isna().all():  # then gap_z says what is more than chance
        return (*first, *(name for name in YIELDS if name != "gap_z"), *last, "gap_z")
    return (*first, *YIELDS, *last)


def _lines(result: Calibration) -> tuple[str, ...]:
    """Return what stands below the table: each model's z, temperature and smoothing, and how intervals were made."""
    lines = [line for model in result.models for line in _model_lines(model)]
    resampled = f"{result.resamples} resamples where they are bootstrapped ({SMOOTH_RESAMPLES} for smooth_ece)"
    return (*lines, f"intervals: seed {result.seed}, {resampled}")


def _more(result: Calibration) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the further tables: the comparison with the first model, and the slices."""
    panel = result.smoothing
    tables = []
    if panel is not None:
        tables += _each_pair("the same tokens", panel.table)
        tables += _each_pair("where the difference comes from, by the mean loss of both", panel.decomposition)
    if result.slices is not None:
        tables.append((f"by {result.by}", without_empty_ends(result.slices)))
    return tuple(tables)


def _each_pair(what: str, table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return a table for each model that is compared with the first, which its heading names."""
    pairs = table.groupby(["first", "second"], sort=False)
    return [
        (f"{what}: {second} against {first}", rows.drop(columns=["first", "second"])) for (first, second), rows in pairs
    ]


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
