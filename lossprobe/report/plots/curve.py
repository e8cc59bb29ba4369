"""Draws the picture of `lossprobe curve`: losses, what was found, and the learning rate, over the steps of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossprobe.analysis.curve.curve import Curve
from lossprobe.logs.log import LEARNING_RATE, TRAIN, Log, Series
from lossprobe.report.plots.curve_axes import frame_losses, frame_rates, frame_steps, tell_progress
from lossprobe.report.plots.curve_lines import LogLook, draw_losses, looks_of
from lossprobe.report.plots.curve_marks import (
    ROW,
    draw_findings,
    draw_partings,
    draw_restarts,
    draw_uniform,
    rows_of,
    shade_findings,
)
from lossprobe.report.plots.thinned import thinned
from lossprobe.report.style import cut, label, legend, new_figure

LOSSES, RATES, AROUND = 3.4, 0.9, 1.7  # inches
TITLE = 230  # characters


def plot_curve(logs: Sequence[Log], result: Curve) -> Figure:
    """Return the losses of logs, raw and smoothed, with the findings and the learning rate below them."""
    looks = looks_of([facts.log for facts in result.logs])
    rates = _rates(logs, looks)
    found = rows_of(result)
    heights = [LOSSES, *([ROW * len(found)] if found else []), *([RATES] if rates else [])]
    named = [result.logs[0].log] if len(logs) == 1 else []  # of several, the finding has the names
    figure = new_figure(sum(heights) + AROUND, *(cut(line, TITLE) for line in (*named, result.finding)))
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    losses, lowest = panels[0], panels[-1]
    frame_steps(lowest, logs)
    shade_findings(losses, found)
    drawn = draw_losses(losses, logs, looks)
    draw_partings(losses, result, looks)
    draw_restarts(losses, logs, looks)
    finite = drawn[np.isfinite(drawn)]
    y = frame_losses(losses, np.append(finite, draw_uniform(losses, result, finite)))
    x = "row of the log" if all(log.steps_counted for log in logs) else "step"
    label(losses, x if losses is lowest else "", y)
    tell_progress(losses, logs)
    if rates:
        label(lowest, x, _draw_rates(lowest, rates))
    if found:
        draw_findings(panels[1], found)
        if panels[1] is lowest:
            lowest.set_xlabel(x)
    legend(lowest, of=losses)
    return figure


def _rates(logs: Sequence[Log], looks: Sequence[LogLook]) -> list[tuple[Series, LogLook]]:
    """Return the learning rates that there are, each with the look of its log."""
    found = [(log.find(TRAIN, LEARNING_RATE), look) for log, look in zip(logs, looks, strict=True)]
    return [(rate, look) for rate, look in found if rate is not None and np.isfinite(rate.values).any()]


def _draw_rates(axes: Axes, rates: Sequence[tuple[Series, LogLook]]) -> str:
    """Draw learning rates, and return the label of their axis."""
    held = []
    for rate, look in rates:
        steps, values = thinned(rate.steps, rate.values)
        axes.plot(steps, values, color=look.train, linewidth=1.2, marker="." if len(steps) == 1 else "")
        held.append(values[np.isfinite(values)])
    return frame_rates(axes, np.concatenate(held))
