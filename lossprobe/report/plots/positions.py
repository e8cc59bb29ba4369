"""Draws the picture of `lossprobe positions`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lossprobe.analysis.positions import PositionLosses
from lossprobe.report.plots.ranges import LONG_INTERVAL
from lossprobe.report.style import BLUE, GREY, VERMILION, heading, interval_line, label, legend, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count

STEPS_PER_OCTAVE = 32  # points of the line: more would be nearer than the ink is wide


AXES = {
    "context": "tokens of context (log scale)",
    "document-position": "position in the document (tokens, log scale)",
    "answer-position": "position in the answer (tokens, log scale)",
}


def plot_positions(run: Run, result: PositionLosses) -> Figure:
    """Return mean loss by position: bins with intervals or every position with its band, the fit, and the counts."""
    figure = new_figure(6.4, heading(run), interval_line(result.interval_unit, known=_known(result)))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    drawn, title = _draw_every(upper, result)
    drawn += _draw_bins(upper, result)
    if result.fit is not None:
        t = np.geomspace(1, float(result.every[result.axis].max()), 200)
        text = f"{result.fit.a_nats:.2f} + {result.fit.b_nats:.2f} (t + 1)^\u2212{result.fit.alpha:.2f} (descriptive)"
        upper.plot(t, result.fit.at(t), color="black", linestyle="--", linewidth=1.1, label=text)
    bottom, top = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    margin = 0.08 * (top - bottom or 1.0)
    upper.set_ylim(max(0.0, bottom - margin), top + margin)
    upper.set_xscale("log", base=2)
    axis = AXES[result.by]
    label(upper, "", "mean loss (nats per token)", title)
    lower.step(result.every[result.axis], result.every["count"], where="mid", color=GREY,
               marker=_marker(result.every))  # fmt: skip
    lower.set_ylim(0, 1.15 * float(result.every["count"].max()))
    lower.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value)) if value >= 1 else ""))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    label(lower, axis, "tokens")
    legend(lower, of=upper)
    return figure


def _draw_every(axes: Axes, result: PositionLosses) -> tuple[list[float], str]:
    """Draw the mean at every position, with its band where that was asked for; return what was drawn, and the title.

    Positions that would lie nearer than the ink is wide are drawn as one point: the mean of their tokens. None are
    drawn beside bins where each would be a single token's loss.
    """
    every = result.every
    asked = result.bins == "every"
    if not asked and int(every["count"].max()) == 1:
        return [], ""
    points, most = _thinned(every, result.axis)
    mean = points["mean_loss_nats"]
    drawn = list(mean)
    title = "" if most == 1 else f"line: mean over up to {format_count(most)} neighbouring positions"
    if asked and points["low"].notna().any():
        length = points["high"] - points["low"]
        shown = length <= LONG_INTERVAL * length.median()
        low, high = points["low"].clip(lower=0.0).where(shown), points["high"].where(shown)
        name = "95 % interval of a position" + ("" if most == 1 else ", mean of its ends")
        axes.fill_between(points[result.axis], low, high, color=BLUE, alpha=0.18, linewidth=0, label=name)
        drawn += [*low, *high]
        if not shown[length.notna()].all():
            title += ("; " if title else "") + "no band where the interval is very long"
    style: dict[str, Any] = {"linewidth": 1.1, "alpha": 0.9} if asked else {"linewidth": 0.8, "alpha": 0.45}
    name = "mean of every position" if most == 1 else "mean of neighbouring positions"
    axes.plot(points[result.axis], mean, color=BLUE, label=name, marker=_marker(points), **style)
    return drawn, title


def _marker(points: pd.DataFrame) -> str:
    """Return the marker of a line: one where it has a single point, which would have no ink."""
    return "." if len(points) == 1 else ""


def _known(result: PositionLosses) -> bool:
    """Return whether there is an interval at all."""
    return bool(result.table["low"].notna().any())


def _thinned(every: pd.DataFrame, axis: str) -> tuple[pd.DataFrame, int]:
    """Return the positions with those that lie too near in one row, and how many are in a row at most."""
    place = np.floor(STEPS_PER_OCTAVE * np.log2(every[axis].to_numpy(float).clip(1))).astype(int)
    weighted = every[[axis, "low", "high"]].assign(
        cell=place, count=every["count"], nats=every["mean_loss_nats"] * every["count"]
    )
    cells = weighted.groupby("cell")
    sums = cells[["count", "nats"]].sum()
    means = cells[[axis, "low", "high"]].mean()
    return means.assign(mean_loss_nats=sums["nats"] / sums["count"]), int(cells.size().max())


def _draw_bins(axes: Axes, result: PositionLosses) -> list[float]:
    """Draw the mean of every bin with its interval, and return means and interval ends; nothing without such bins."""
    if result.bins != "geometric":
        return []
    bins = result.table
    centre = np.sqrt(bins[result.axis].astype(float) * bins[f"{result.axis}_last"].astype(float))
    mean, low, high = bins["mean_loss_nats"], bins["low"].clip(lower=0.0), bins["high"]
    style: dict[str, Any] = {"fmt": "o", "color": VERMILION, "capsize": 3, "markersize": 5}
    name = "mean of a bin" + (", 95 % interval" if _known(result) else "")
    axes.errorbar(centre, mean, yerr=[mean - low, high - mean], label=name, **style)
    return [*mean, *low, *high]
