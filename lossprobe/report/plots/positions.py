"""Draws the picture of `lossprobe positions`."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lossprobe.analysis.positions import PositionLosses
from lossprobe.report.style import BLUE, GREY, VERMILION, heading, interval_words, label, legend, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count


def plot_positions(run: Run, result: PositionLosses) -> Figure:
    """Return a figure of mean loss by position: every position, bins with intervals, the fit, and the token counts."""
    figure = new_figure(9, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    drawn = [*_draw_every(upper, result), *_draw_bins(upper, result)]
    if result.fit is not None:
        t = np.geomspace(1, float(result.every[result.axis].max()), 200)
        text = f"{result.fit.a_nats:.2f} + {result.fit.b_nats:.2f} (t + 1)^\u2212{result.fit.alpha:.2f} (descriptive)"
        upper.plot(t, result.fit.at(t), color="black", linestyle="--", linewidth=1.1, label=text)
    bottom, top = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    margin = 0.1 * (top - bottom or 1.0)
    upper.set_ylim(bottom - margin, top + margin)
    upper.set_xscale("log", base=2)
    legend(upper, fontsize=8)
    axis = "tokens of context (log scale)" if result.by == "context" else "position in the document (tokens, log scale)"
    label(
        upper,
        "",
        "mean loss (nats per token)",
        f"{heading(run)}: intervals over {interval_words(result.interval_unit)}",
    )
    lower.step(result.every[result.axis], result.every["count"], where="mid", color=GREY)
    lower.set_ylim(0, 1.15 * float(result.every["count"].max()))
    lower.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    label(lower, axis, "tokens")
    return figure


def _draw_every(axes: Axes, result: PositionLosses) -> list[float]:
    """Draw the mean and interval at every position and return the means; draw nothing if each has one token only."""
    every = result.every
    if result.bins == "geometric" and int(every["count"].max()) == 1:
        return []
    x = every[result.axis]
    if every["low"].notna().any():
        band = "95 % interval, every position"
        axes.fill_between(x, every["low"], every["high"], color=BLUE, alpha=0.18, linewidth=0, label=band)
    axes.plot(x, every["mean_loss_nats"], color=BLUE, linewidth=0.9, alpha=0.8, label="mean, every position")
    return list(every["mean_loss_nats"])


def _draw_bins(axes: Axes, result: PositionLosses) -> list[float]:
    """Draw the mean of every bin with its interval, and return means and interval ends; nothing without such bins."""
    if result.bins != "geometric":
        return []
    bins = result.table
    centre = np.sqrt(bins[result.axis].astype(float) * bins[f"{result.axis}_last"].astype(float))
    mean, low, high = (bins[name] for name in ("mean_loss_nats", "low", "high"))
    style: dict[str, Any] = {"fmt": "o", "color": VERMILION, "capsize": 3, "markersize": 5}
    axes.errorbar(centre, mean, yerr=[mean - low, high - mean], label="mean and 95 % interval, bins", **style)
    return [*mean, *low, *high]
