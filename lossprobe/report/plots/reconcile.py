"""The recipes that were tried, along the axis of the number, with the logged one and its digits as a band."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lossprobe.analysis.reconcile.reconcile import Reconciliation
from lossprobe.report.style import BLUE, GREY, SMALL, VERMILION, cut, heading, label, legend, legend_name, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import plural

AROUND = 150  # values that the axis reaches
NAMED = 3  # recipes that the legend names
MARKERS = ("o", "s", "D")
NAME = 90  # characters of a recipe in the legend


def plot_reconcile(run: Run, result: Reconciliation) -> Figure:
    """Return the values near the logged one by their departures, and the first recipes by name."""
    figure = new_figure(3.6, heading(run), f"recipes near {result.source or 'the logged number'} {result.logged}")
    axes = figure.subplots()
    near, table = result.nearby, result.table
    reach = np.abs(near["value"] - result.value).sort_values().iloc[: AROUND + 1].max()
    shown = table["value"].iloc[:NAMED]
    reach = 1.08 * max(reach, 2 * (result.largest - result.smallest), np.abs(shown - result.value).max())
    axes.set_xlim(result.value - reach, result.value + reach)
    width = max(result.largest - result.smallest, 0.002 * reach)  # as wide as can be seen
    axes.axvspan(result.value - width / 2, result.value + width / 2, color=VERMILION, alpha=0.3, linewidth=0,
                 label=legend_name(f"logged {result.logged}, with what is printed so"))  # fmt: skip
    other = near[~near["agrees"]]
    axes.plot(other["value"], other["departures"], "|", color=GREY, markersize=9, markeredgewidth=0.8,
              label=legend_name(f"other recipes ({plural(result.tried, 'value')} tried)"))  # fmt: skip
    agreeing = near[near["agrees"]]
    axes.plot(agreeing["value"], agreeing["departures"], "|", color=BLUE, markersize=9, markeredgewidth=1.2)
    for row, marker in zip(table.to_dict("records"), MARKERS, strict=False):
        axes.plot([row["value"]], [row["departures"]], marker, color=BLUE, markersize=6,
                  fillstyle="full" if row["agrees"] else "none",
                  label=legend_name(f"{row['rank']}. {row['value']:.6f} {cut(row['recipe'], NAME)}"))  # fmt: skip
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_ylim(5.6, -0.6)
    axes.set_yticks(range(6))
    label(axes, "number that the recipe gives", "departures")
    axes.tick_params(axis="x", labelsize=SMALL)
    legend(axes)
    return figure
