"""Draws the picture of `lossprobe selfcheck`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lossprobe.analysis.selfcheck import MUST_NOT, SelfCheck
from lossprobe.report.plots.ranges import AROUND, name_rows
from lossprobe.report.style import BLUE, GREEN, VERMILION, heading, label, legend, model_names, new_figure
from lossprobe.run.reader import Run

LEAST = 1e-10  # nats; smaller differences, 0 included, are drawn here because the axis is logarithmic
ROW = 0.3  # inches: the mean above, a single token below
NAME_WIDTH = 40
SIZES = (
    ("difference_nats", "limit_nats", "o", "mean loss", -0.15),
    ("largest_nats", "largest_limit_nats", "D", "largest of a single token", 0.15),
)


def plot_selfcheck(run: Run, result: SelfCheck) -> Figure:
    """Return how far each change moved the mean loss and the loss of a single token, each beside its limit."""
    known = result.table[result.table["tokens"] > 0].reset_index(drop=True)
    figure = new_figure(AROUND + 0.6 + ROW * len(known), heading(run))
    axes = figure.subplots()
    must = (known["kind"] == MUST_NOT).to_numpy()
    rows = np.arange(len(known))
    for measure, limit, marker, words, shift in SIZES:
        values = known[measure].abs().clip(lower=LEAST).to_numpy(float)
        for kind, colour, which in ((MUST_NOT, BLUE, must), ("may matter", GREEN, ~must)):
            if which.any():
                axes.plot(values[which], rows[which] + shift, marker, color=colour, markersize=5, linestyle="",
                          label=f"{words}, {kind}")  # fmt: skip
        limits = known[limit].to_numpy(float)
        which = limits > 0
        if which.any():
            axes.plot(limits[which], rows[which] + shift, "|" if marker == "o" else "x", color=VERMILION, markersize=8,
                      linestyle="", label=f"limit of the {words}: rounding")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(LEAST / 2, None)
    checks = [f"{check}: {setting}" for check, setting in zip(known["check"], known["setting"], strict=True)]
    name_rows(axes, rows, model_names(checks, NAME_WIDTH))
    label(axes, "change of the loss (nats, log scale); the left edge is no change at all", "")
    legend(axes)
    return figure
