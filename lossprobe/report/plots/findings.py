"""Draws the picture of `lossprobe findings`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from lossprobe.analysis.findings.findings import RunFindings
from lossprobe.analysis.findings.rule import SEVERITIES, RuleFinding
from lossprobe.report.plots.ranges import AROUND, MOST_ROWS, ROW, name_rows
from lossprobe.report.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    cut,
    drawable,
    heading,
    label,
    legend,
    new_figure,
    text_heading,
)
from lossprobe.run.reader import Run
from lossprobe.units import plural

COLOURS = dict(zip(SEVERITIES, (VERMILION, ORANGE, BLUE), strict=True))
MARKERS = dict(zip(SEVERITIES, ("X", "s", "o"), strict=True))
FARTHEST = 1e3  # times the threshold; what lies beyond is drawn there
ABOUT_WIDTH = 24


def plot_findings(run: Run, result: RunFindings) -> Figure:
    """Return each finding as a multiple of its threshold, with the 95 % interval and the one that decided."""
    shown = result.findings[:MOST_ROWS]
    rows = np.arange(len(shown))
    title = heading(run) if len(result.models) == 1 else f"{plural(len(result.models), 'model')} on {text_heading(run)}"
    figure = new_figure(AROUND + ROW * max(2.0, 1.5 * len(shown)), title, result.finding.partition("; first: ")[0])
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))
    axes.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2.0, 0.5)))
    for severity in SEVERITIES:
        places = [place for place, found in enumerate(shown) if found.severity == severity]
        if not places:
            continue
        colour = COLOURS[severity]
        for place in places:
            found = shown[place]
            for (low, high), width in ((found.decision_interval, 1.0), (found.value_interval, 3.0)):
                if low is not None and high is not None:
                    first, last = sorted((multiple(found, low), multiple(found, high)))
                    axes.hlines(place, first, last, color=colour, linewidth=width)
        values = [multiple(shown[place], shown[place].value) for place in places]
        axes.plot(values, places, MARKERS[severity], color=colour, markersize=6, label=severity, zorder=3)
    axes.axvline(1.0, color=GREY, linewidth=1.2, label="threshold")
    name_rows(axes, rows, [_name(found, name) for found, name in zip(shown, result.table["model"], strict=False)])
    left = len(result.findings) - len(shown)
    more = f"; {left} more in the table" if left else ""
    label(axes, "times the threshold (logarithmic)", "", f"thick: 95 % interval; thin: the interval that decided{more}")
    legend(axes)
    return figure


def multiple(found: RuleFinding, number: float) -> float:
    """Return how many times the threshold a number is, in the rule's direction: above 1 it is beyond it.

    A rule that must lie below a positive threshold has threshold / number; one whose threshold is 0 counts.
    """
    if found.threshold == 0.0:
        return float(np.clip(number, 1.0 / FARTHEST, FARTHEST))
    if found.below and found.threshold > 0.0:
        return float(min(FARTHEST, found.threshold / number)) if number > 0.0 else FARTHEST
    return float(np.clip(number / found.threshold, 1.0 / FARTHEST, FARTHEST))


def _name(found: RuleFinding, model: str) -> str:
    about = f" ({cut(found.about, ABOUT_WIDTH)})" if found.about and found.about != model else ""
    return drawable(f"{found.id}{about}: {found.value:.3g} {found.unit}")
