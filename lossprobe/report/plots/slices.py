"""Calibration by group, and against the first model: panels of the picture of `lossprobe calibration`."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lossprobe.analysis.calibration.smoothing import SmoothingPanel
from lossprobe.report.plots.ranges import MOST_ROWS, Side, counted, draw_ranges, ends_of, name_rows
from lossprobe.report.style import GREY, label, legend, model_names
from lossprobe.units import format_count

GROUP_WIDTH = 28
BANDS = 6  # of the mean loss, at most


def groups_of(slices: pd.DataFrame) -> pd.DataFrame:
    """Return the groups that get a row, those of the first model first: group, conditioned_on and the first's count."""
    held = slices[slices["count"] > 0]
    return held.drop_duplicates(["group", "conditioned_on"])[["group", "conditioned_on", "count"]].head(MOST_ROWS)


def draw_slices(
    axes: Axes, slices: pd.DataFrame, by: str, models: list[tuple[str, str]], looks: list[tuple[str, str]]
) -> None:
    """Draw by how much each model's confidence exceeds its accuracy in each group, with intervals.

    Args:
        axes: where.
        slices: the rows of all models.
        by: what groups are.
        models: name in the slices, and name to show, of each model drawn.
        looks: colour and marker of each.
    """
    groups = groups_of(slices)
    rows = np.arange(len(groups))
    sides = []
    for index, ((model, name), (colour, marker)) in enumerate(zip(models, looks, strict=True)):
        own = slices[(slices["model"] == model) & (slices["count"] > 0)]
        found = groups[["group", "conditioned_on"]].merge(own, "left", ["group", "conditioned_on"])
        shift = 0.8 * ((index + 0.5) / len(models) - 0.5)
        sides.append(Side(ends_of(found, "confidence_gap"), colour, marker, name, shift))
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
    remarks = draw_ranges(axes, rows, sides, 0.0)
    held = len(slices[slices["count"] > 0].drop_duplicates(["group", "conditioned_on"]))
    shown = f", {len(groups)} of {format_count(held)} groups" if len(groups) < held else ""
    names = model_names(
        [
            _group_name(group, conditioned_on, by)
            for group, conditioned_on in groups[["group", "conditioned_on"]].to_numpy(str)
        ],
        GROUP_WIDTH,
    )
    counts = [format_count(int(count)) for count in groups["count"]]
    name_rows(axes, rows, [counted(name, count) for name, count in zip(names, counts, strict=True)])
    label(axes, "confidence − accuracy; above 0: over-confident", "",
          f"by {by} (tokens of {models[0][1]}){shown}{remarks}")  # fmt: skip
    legend(axes)


def draw_against_first(
    axes: Axes, panel: SmoothingPanel, models: list[tuple[str, str]], looks: list[tuple[str, str]]
) -> None:
    """Draw the difference of each model's loss to the first's, by how hard both find the token."""
    table = panel.decomposition
    held = table[table["tokens"] > 0].drop_duplicates("loss_low_nats")
    bands = held[["loss_low_nats", "loss_high_nats"]].sort_values("loss_low_nats")
    rows = np.arange(len(bands))
    sides, bounds = [], []
    for index, ((model, name), (colour, marker)) in enumerate(zip(models[1:], looks[1:], strict=True)):
        own = bands.merge(table[table["second"] == model], "left", ["loss_low_nats", "loss_high_nats"])
        shift = 0.7 * ((index + 0.5) / (len(models) - 1) - 0.5)
        sides.append(Side(ends_of(own, "mean_difference_nats"), colour, marker, name, shift))
        bounds += _bound_words(panel, model, name)
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
    remarks = draw_ranges(axes, rows, sides, 0.0)
    name_rows(axes, rows, [_band_name(low, high) for low, high in bands.itertuples(index=False)])
    title = f"where the difference comes from, by the mean loss of both (nats){remarks}"
    label(axes, f"difference of the mean loss (nats per token); above 0: worse than {models[0][1]}", "",
          "\n".join([title, *bounds]))  # fmt: skip
    legend(axes)


def _bound_words(panel: SmoothingPanel, model: str, name: str) -> list[str]:
    """Return what perplexity was multiplied by, and how much label smoothing may have multiplied it by at most."""
    rows = panel.table[panel.table["second"] == model].set_index("measure")["value"]
    ratio, bound = (float(rows.get(name, math.nan)) for name in ("perplexity_ratio", "perplexity_inflation_bound"))
    if math.isnan(ratio) or math.isnan(bound):
        return []
    return [f"{name}: perplexity × {ratio:.3f}; label smoothing explains at most × {bound:.3f}"]


def _group_name(group: str, conditioned_on: str, by: str) -> str:
    name = f"document {group}" if by == "document" else str(group) or f"(no {by})"
    return f"{name} came" if conditioned_on == "target" else name


def _band_name(low: float, high: float) -> str:
    return f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"
