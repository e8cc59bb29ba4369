"""Draws the picture of `lossprobe preferences`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossprobe.analysis.preferences.preferences import Preferences
from lossprobe.report.style import BLUE, GREY, ORANGE, SMALL, VERMILION, label, legend, new_figure, text_heading
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

MOST_POINTS = 3000
SHARES = (
    ("ranked_right", "right_low", "right_high", "by the sum", BLUE, "o", -0.18),
    ("ranked_right_per_token", "per_token_low", "per_token_high", "per token", ORANGE, "s", 0.0),
    ("reward_accuracy", "reward_low", "reward_high", "by the implicit reward", VERMILION, "D", 0.18),
)


def plot_preferences(run: Run, result: Preferences) -> Figure:
    """Return chosen against rejected log-probability per token, and the share ranked right by difference in length."""
    lengths = result.groups[result.groups["kind"] == "length"]
    pairs = f"{text_heading(run)}: {format_count(result.ranked_pairs)} pairs"
    models = visible(run.name, 40) + (f" against {visible(result.reference, 40)}" if result.reference else "")
    figure = new_figure(4.6, f"{models} on {pairs}", "95 % intervals over pairs")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.05])
    _draw_pairs(left, result)
    _draw_shares(right, lengths)
    for axes in (left, right):
        legend(axes)
    return figure


def _draw_pairs(axes: Axes, result: Preferences) -> None:
    """Draw each pair as a point, and the diagonal, above which a pair is ranked right."""
    ranked = result.table[result.table["ranking"].isin(["right", "wrong", "tie"])]
    step = -(-len(ranked) // MOST_POINTS)
    shown = ranked.iloc[::step]
    chosen, rejected = (
        (shown[f"{side}_logp_nats"] / shown[f"{side}_tokens"]).to_numpy(float) for side in ("chosen", "rejected")
    )
    right = chosen > rejected
    size = 14 if len(shown) < 400 else 5
    for where, colour, marker, name in (
        (right, BLUE, "o", "chosen more likely per token"),
        (~right, VERMILION, "x", "not more likely"),
    ):
        axes.scatter(rejected[where], chosen[where], s=size, color=colour, marker=marker, alpha=0.6, linewidth=0.9,
                     label=f"{name}: {format_count(int(where.sum()))}")  # fmt: skip
    ends = [float(np.minimum(chosen, rejected).min()), float(np.maximum(chosen, rejected).max())]
    room = 0.04 * (ends[1] - ends[0] or 1.0)
    ends = [ends[0] - room, min(ends[1] + room, 0.0)]
    axes.plot(ends, ends, color=GREY, linewidth=1.0, label="equally likely")
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    some = "" if step == 1 else f"; every {format_count(step)}th pair"
    label(axes, "rejected: log-probability, nats per token", "chosen: log-probability, nats per token",
          f"above the line: ranked right{some}")  # fmt: skip


def _draw_shares(axes: Axes, lengths: pd.DataFrame) -> None:
    """Draw the shares ranked right of the groups by difference in length, with their intervals."""
    places = np.arange(len(lengths))
    for column, low, high, name, colour, marker, shift in SHARES:
        if column in lengths:
            share = 100 * lengths[column].to_numpy(float)
            ends: Any = [share - 100 * lengths[low], 100 * lengths[high] - share]
            axes.errorbar(share, places + shift, xerr=np.maximum(ends, 0), fmt=marker, color=colour, capsize=2.5,
                          markersize=4.5, linewidth=1.2, label=name)  # fmt: skip
    axes.axvline(50, color=GREY, linewidth=1.0, linestyle=":", label="a coin")
    names = [f"{row['group']} ({format_count(int(row['pairs']))})" for row in lengths.to_dict("records")]
    axes.set_yticks(places, names, fontsize=SMALL)
    axes.set_xlim(-3, 103)
    axes.set_ylim(len(lengths) - 0.5, -0.5)
    label(axes, "pairs ranked right (%)", "", "by length in tokens (pairs)")
