"""Draws the picture of `lossprobe hardest`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lossprobe.analysis.hardest import Hardest
from lossprobe.report.style import BLUE, MONOSPACE, ORANGE, drawable, heading, label, new_figure
from lossprobe.run.reader import Run

BARS = 30
BEFORE, AFTER = 24, 14  # characters shown around a token


def plot_hardest(run: Run, result: Hardest) -> Figure:
    """Return a figure with a bar for each of the hardest tokens, types, documents or classes."""
    table = _first_bars(result.table)
    measure = "loss_nats" if "loss_nats" in table.columns else "mean_loss_nats"
    figure = new_figure(10, 1.6 + 0.26 * len(table))
    axes = figure.subplots()
    rows = np.arange(len(table))
    colour = [ORANGE if kind in ("mean", "occurrence") else BLUE for kind in _kinds(table)]
    axes.barh(rows, table[measure].astype(float), color=colour, height=0.78)
    if {"low", "high"} <= set(table.columns):
        error = [table[measure] - table["low"], table["high"] - table[measure]]
        axes.errorbar(table[measure], rows, xerr=error, fmt="none", color="black", capsize=3)
    axes.set_yticks(
        rows, [drawable(name) for name in _bar_names(result.by, table)], fontsize=8, family=MONOSPACE, parse_math=False
    )
    axes.set_ylim(len(table) - 0.4, -0.6)
    unit = "loss (nats)" if measure == "loss_nats" else "mean loss (nats per token)"
    shown = f", {len(table)} of {len(result.table)}" if len(table) < len(result.table) else ""
    label(axes, unit, "", f"{heading(run)}: hardest by {result.by}{shown}")
    axes.grid(visible=False, axis="y")
    return figure


def _kinds(table: pd.DataFrame) -> list[str]:
    for name in ("hardest_by", "kind"):
        if name in table.columns:
            return [str(kind) for kind in table[name]]
    return [""] * len(table)


def _first_bars(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to draw: the first rows of each ranking, the same number of each, `BARS` at most."""
    kinds = pd.Series(_kinds(table), index=table.index)
    place = kinds.groupby(kinds).cumcount()
    return table[place < BARS // kinds.nunique()]


def _bar_names(by: str, table: pd.DataFrame) -> list[str]:
    """Return the label of each bar."""
    rows = table.to_dict("records")
    if by == "token":
        return [
            f"{row['before'][-BEFORE:]}\u27e6{row['characters'][:BEFORE]}\u27e7{row['after'][:AFTER]:{AFTER}}"
            for row in rows
        ]
    if by == "type":
        return [
            f"\u27e6{row['text'][:BEFORE]}\u27e7 \u00d7{row['count']}, {row['share_of_loss']:.1%} of the loss "
            f"(by {row['hardest_by']})"
            for row in rows
        ]
    if by == "document":
        return [f"{row['document']}: {row['begins'][:28]}" for row in rows]
    return [f"{row['class']} ({row['kind']}, {row['share_of_tokens']:.1%} of tokens)" for row in rows]
