"""The lines of the picture of `lossprobe curve`: training losses raw and smoothed, the other losses, their lowest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lossprobe.analysis.curve.curve import prominence
from lossprobe.analysis.curve.noise import smoothed
from lossprobe.logs.log import EVALUATED_TRAIN, LOSS, TRAIN, VALIDATION, Log, Series
from lossprobe.report.plots.thinned import Floats, columns_of, thinned
from lossprobe.report.style import BLUE, GREEN, GREY, ORANGE, VERMILION, legend_name, model_names
from lossprobe.units import format_count, plural

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, GREY)
LINES = ("-", "-.", ":")
MARKERS = ("o", "s", "D", "^", "v")
FEW = 40  # points that are worth a marker each, and have no smoothed line
NAME = 34  # characters of a log's name in the legend
LOWEST = "lowest of each validation loss"
TOP = 0.985  # of the panel's height, where values stand that have no height


@dataclass(frozen=True)
class LogLook:
    """How a log is drawn.

    Attributes:
        name: what its names in the legend begin with.
        train: the colour of its training loss.
        others: the colours of its other losses.
        line: the style of its training loss.
    """

    name: str
    train: str
    others: tuple[str, ...]
    line: str = "-"


def looks_of(names: Sequence[str]) -> list[LogLook]:
    """Return how logs are drawn: one has a colour for each text, of several each has one colour."""
    if len(names) == 1:
        return [LogLook("", BLUE, (VERMILION, GREEN, ORANGE, GREY))]
    looks = []
    for place, name in enumerate(model_names(list(names), NAME)):
        again, number = divmod(place, len(COLOURS))
        looks.append(LogLook(f"{name}: ", COLOURS[number], (COLOURS[number],), LINES[again % len(LINES)]))
    return looks


def draw_losses(axes: Axes, logs: Sequence[Log], looks: Sequence[LogLook]) -> Floats:
    """Draw all losses of logs, and return what the axis must hold."""
    held = [np.zeros(0)]
    for log, look in zip(logs, looks, strict=True):
        alone, other = len(logs) == 1, 0
        for loss in sorted((each for each in log.series if each.name == LOSS and len(each.steps)), key=prominence):
            if loss.split == TRAIN:
                held.append(_draw_train(axes, loss, look, alone=alone))
            elif loss.split == EVALUATED_TRAIN:
                held.append(_draw_other(axes, loss, replace(look, others=(look.train,)), 0, alone=False))
            else:
                held.append(_draw_other(axes, loss, look, other, alone=alone))
                other += 1
    return np.concatenate(held)


def _draw_train(axes: Axes, loss: Series, look: LogLook, *, alone: bool) -> Floats:
    """Draw a training loss: thin and light as logged, thick as smoothed; one of few points with a marker each."""
    points = thinned(loss.steps, loss.values)
    name = f"{look.name}{loss.key}"
    few = len(loss.steps) <= FEW
    style: dict[str, Any] = {"linewidth": 1.4, "marker": "."}
    if not few:
        style = {"linewidth": 0.6, "alpha": 0.4 if alone else 0.25}
    shown = np.isfinite(points[1]).any()
    told = name if few else f"{name}, as logged"
    axes.plot(*points, color=look.train, label=legend_name(told) if shown and (few or alone) else "_", **style)
    if not few:
        told = f"{name}, smoothed" if alone else name
        axes.plot(*thinned(*smoothed(loss)), color=look.train, linewidth=2.0, linestyle=look.line,
                  label=legend_name(told) if shown else "_")  # fmt: skip
    _draw_not_finite(axes, loss, look.train, name, "x")
    return points[1]


def _draw_other(axes: Axes, loss: Series, look: LogLook, place: int, *, alone: bool) -> Floats:
    """Draw the loss of another text: a marker each, joined by a line, the lowest starred."""
    colour = look.others[place % len(look.others)]
    steps, values = thinned(loss.steps, loss.values)
    name = f"{look.name}{loss.key}"
    axes.plot(steps, values, color=colour, linewidth=1.3, marker=MARKERS[place % len(MARKERS)],
              markersize=4 if len(steps) <= FEW else 2, linestyle="-" if alone else "--",
              label=legend_name(name) if np.isfinite(values).any() else "_")  # fmt: skip
    if loss.split == VALIDATION and np.isfinite(values).sum() > 1:
        lowest = int(np.nanargmin(values))
        told = f"lowest: {values[lowest]:.4f} at step {format_count(int(steps[lowest]))}"
        if not alone:
            told = "_" if LOWEST in axes.get_legend_handles_labels()[1] else LOWEST
        axes.plot([steps[lowest]], [values[lowest]], "*", color=colour, markeredgecolor="black", markersize=11,
                  markeredgewidth=0.6, zorder=4, label=told)  # fmt: skip
    _draw_not_finite(axes, loss, colour, name, "+")
    return values


def _draw_not_finite(axes: Axes, loss: Series, colour: str, name: str, marker: str) -> None:
    """Mark at the upper border where a loss is no number or infinite."""
    wrong = loss.steps[~np.isfinite(loss.values)]
    if not len(wrong):
        return
    shown = wrong[np.unique(columns_of(wrong), return_index=True)[1]]
    axes.plot(shown, np.full(len(shown), TOP), marker, color=colour, markersize=6, markeredgewidth=1.4, zorder=4,
              transform=axes.get_xaxis_transform(),
              label=legend_name(f"{name}: NaN or infinite ({plural(len(wrong), 'time')})"))  # fmt: skip
