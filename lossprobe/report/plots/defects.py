"""Draws the picture of `lossprobe defects`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lossprobe.analysis.defects.defects import Defects
from lossprobe.report.plots.ranges import AROUND, ROW, counted, name_rows
from lossprobe.report.style import BLUE, GREY, VERMILION, heading, label, legend, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import plural

SMALLEST = 1e-6  # share that is drawn: of a token among a million
SIDES = (("share_of_tokens", BLUE, "o", "share of the tokens"), ("share_of_loss", VERMILION, "s", "share of the loss"))


def plot_defects(run: Run, result: Defects) -> Figure:
    """Return the share of the tokens and of the loss of each cause, one row each, on a scale of powers of ten."""
    table = result.table
    rows = np.arange(len(table))
    figure = new_figure(AROUND + 0.6 + ROW * 1.6 * max(1, len(table)), heading(run), result.finding)
    axes = figure.subplots()
    axes.set_xscale("log")
    names = [counted(row["cause"], plural(row["places"], "place")) for row in table.to_dict("records")]
    shares = [table[name].to_numpy(float).clip(SMALLEST) for name, *_ in SIDES]
    if len(table):
        axes.hlines(rows, np.fmin(*shares), np.fmax(*shares), color=GREY, linewidth=1.2)
    for values, (_, colour, marker, name) in zip(shares, SIDES, strict=True):
        axes.plot(values, rows, marker, color=colour, markersize=6, label=name, clip_on=False, zorder=3)
    _set_scale(axes, shares)
    name_rows(axes, rows, names)
    label(axes, "share (%)", "", "a square to the right of its circle: dearer than other text")
    legend(axes)
    return figure


def _set_scale(axes: Axes, shares: list[np.ndarray]) -> None:
    known = np.concatenate([*shares, [np.nan]])
    known = known[np.isfinite(known)]
    low, high = (known.min(), known.max()) if len(known) else (1e-4, 1e-2)
    axes.set_xlim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high * 1.0001)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g}"))
    axes.minorticks_off()
