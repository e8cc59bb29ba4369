"""Draws the picture of `lossprobe selfcheck`."""

from __future__ import annotations

from matplotlib.figure import Figure

from lossprobe.analysis.selfcheck import MUST_NOT, SelfCheck
from lossprobe.report.style import BLUE, GREEN, VERMILION, drawable, heading, label, legend, new_figure
from lossprobe.run.reader import Run

LEAST = 1e-10  # nats; smaller differences, 0 included, are drawn here because the axis is logarithmic


def plot_selfcheck(run: Run, result: SelfCheck) -> Figure:
    """Return a figure of how far each check moved the mean loss and any single loss, with the limit for rounding."""
    known = result.table[result.table["tokens"] > 0]
    figure = new_figure(9, 1.6 + 0.3 * len(known))
    axes = figure.subplots()
    sizes = {"mean": known["difference_nats"].abs(), "token": known["largest_nats"]}
    must = (known["kind"] == MUST_NOT).to_numpy()
    rows = range(len(known))
    for name, marker, words in (("mean", "o", "mean loss"), ("token", "|", "largest of a single token")):
        values = sizes[name].clip(lower=LEAST).to_numpy()
        for kind, colour, which in ((MUST_NOT, BLUE, must), ("may matter", GREEN, ~must)):
            places = [row for row in rows if which[row]]
            if places:
                text = f"{words}, {kind}"
                axes.plot(values[places], places, marker, color=colour, markersize=7, linestyle="", label=text)
    limits = known["limit_nats"].to_numpy()
    places = [row for row in rows if limits[row] > 0]
    if places:
        axes.plot(limits[places], places, "x", color=VERMILION, linestyle="", label="limit of the mean: rounding")
    names = [f"{check}: {setting}" for check, setting in zip(known["check"], known["setting"], strict=True)]
    axes.set_yticks(rows, [drawable(name) for name in names], fontsize=8, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(LEAST / 2, None)
    legend(axes, fontsize=7, loc="best")
    label(axes, "change of the loss (nats), log scale; the left edge is no change at all", "", heading(run))
    axes.grid(visible=False, axis="y")
    return figure
