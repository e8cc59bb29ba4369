"""Draws the picture of `lossprobe gap`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossprobe.analysis.gap.gap import Gap
from lossprobe.report.style import BLUE, GREY, VERMILION, drawable, interval_words, label, legend, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

SIDES = (("train", BLUE, "o", -0.16), ("validation", VERMILION, "s", 0.16))
BETWEEN_KINDS = 0.8
LONG_INTERVAL = 5.0  # times the median length; longer intervals, of few tokens, do not extend the axis


def plot_gap(run: Run, result: Gap) -> Figure:
    """Return a figure of the train and validation loss of each group of tokens, and of their difference."""
    table = result.table
    breaks = (table["kind"] != table["kind"].shift()).cumsum() - 1
    rows = np.arange(len(table)) + BETWEEN_KINDS * breaks.to_numpy(float)
    figure = new_figure(11, 2.2 + 0.34 * (float(rows[-1]) + 1))
    losses, gaps = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    sides = {"train": result.train, "validation": result.validation}
    for side, colour, marker, shift in SIDES:
        name = f"{side}: {visible(sides[side].text, 40)}"
        _draw_ranges(losses, rows + shift, _ends(table, side), (colour, marker, drawable(name)))
    cut = _frame(losses, pd.concat([_ends(table, side) for side, *_ in SIDES]))
    _draw_ranges(gaps, rows, table[["gap_nats", "low", "high"]], ("black", "D", "validation − train"))
    gaps.axvline(0.0, color=GREY, linewidth=1.2, label="no gap")
    gaps.axvline(result.gap_nats, color="black", linestyle=":", linewidth=1.0, label="gap of all tokens")
    cut |= _frame(gaps, table[["gap_nats", "low", "high"]], 0.0)
    losses.set_yticks(rows, [_row_name(row) for row in table.to_dict("records")], fontsize=8, parse_math=False)
    losses.set_ylim(float(rows[-1]) + 0.7, -0.7)
    for axes in (losses, gaps):
        legend(axes, fontsize=8, loc="best")
    units = " and ".join(dict.fromkeys(interval_words(side.interval_unit) for side in sides.values()))
    heading = f"{visible(result.checkpoint, 40)}, context {run.context}: {result.verdict}\n95 % intervals over {units}"
    label(losses, "mean loss (nats per token); smaller is better", "group (train / validation tokens)", heading)
    label(
        gaps, "gap (nats per token)", "", "validation − train, unpaired" + ("\nlong intervals are cut" if cut else "")
    )
    return figure


def _ends(table: pd.DataFrame, side: str) -> pd.DataFrame:
    return table[[f"{side}_loss_nats", f"{side}_low", f"{side}_high"]].set_axis(["value", "low", "high"], axis=1)


def _draw_ranges(axes: Axes, rows: np.ndarray, ends: pd.DataFrame, look: tuple[str, str, str]) -> None:
    """Draw a marker for each row, with its interval where there is one."""
    colour, marker, name = look
    value, low, high = ends.to_numpy(float).T
    axes.hlines(rows, low, high, color=colour, linewidth=1.8)
    axes.plot(value, rows, marker, color=colour, markersize=5, label=name)


def _frame(axes: Axes, ends: pd.DataFrame, *others: float) -> bool:
    """Set the x axis so that all values and intervals fit, but for very long intervals; return whether one is cut."""
    value, low, high = ends.to_numpy(float).T
    length = (high - low)[np.isfinite(high - low)]
    usual = high - low <= LONG_INTERVAL * (np.median(length) if len(length) else 0.0)
    held = np.concatenate([value[np.isfinite(value)], low[usual], high[usual], others])
    margin = 0.06 * (held.max() - held.min()) or 0.5
    axes.set_xlim(held.min() - margin, held.max() + margin)
    return bool((low < held.min() - margin).any() or (high > held.max() + margin).any())


def _row_name(row: dict[Any, Any]) -> str:
    tokens = " / ".join(format_count(int(row[f"{side}_tokens"])) for side, *_ in SIDES)
    group = f"in training text {row['group']}×" if row["kind"] == "frequency" else row["group"]
    return drawable(f"{group}  ({tokens})")
