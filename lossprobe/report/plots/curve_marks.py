"""The marks in the picture of `lossprobe curve`: a strip with the findings, shades at their steps, levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from lossprobe.analysis.curve.curve import Curve
from lossprobe.logs.log import Log
from lossprobe.report.plots.curve_lines import LogLook
from lossprobe.report.plots.thinned import Floats
from lossprobe.report.style import GREY, SMALL, VERMILION, cut, legend_name, plain_text
from lossprobe.units import format_count, plural

ROW = 0.24  # inches, of a finding in the strip
MOST = 8  # rows of the strip
WIDEST = 0.6  # of the axis: a longer finding does not shade the losses
THINNEST = 0.006  # of the axis, of a mark
SINGLE_ROWS = ("spikes",)  # diagnoses of rows with sound ones between them
NEAR = 0.35  # of the losses' range, how far above it ln V is still drawn
NAME = 60  # characters
MOST_RESTARTS = 20  # the last ones


def rows_of(result: Curve) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of the strip, each with its name: the findings of one diagnosis in one log."""
    several = len(result.logs) > 1
    groups = result.table.groupby(["log", "diagnosis"], sort=False)
    named = [(f"{log}: {name}" if several else str(name), found) for (log, name), found in groups]
    return [
        (name if len(found) == 1 else f"{name} ({plural(len(found), 'time')})", found) for name, found in named[:MOST]
    ]


def draw_findings(axes: Axes, rows: list[tuple[str, pd.DataFrame]]) -> None:
    """Draw a row for each name, with a bar over the steps of each of its findings."""
    first, last = axes.get_xlim()
    wide = last - first
    for place, (name, found) in enumerate(rows):
        colour = colour_of(found)
        bars = [_bar(row["first_step"], row["last_step"], wide) for row in found.to_dict("records")]
        axes.broken_barh(bars, (place - 0.36, 0.72), facecolors=colour, alpha=0.4, linewidth=0)
        left = bars[0][0] - first < 0.55 * wide
        edge = bars[0][0] + 0.006 * wide if left else bars[0][0] + bars[0][1] - 0.006 * wide
        plain_text(axes, edge, place, cut(name, NAME), fontsize=SMALL, va="center", ha="left" if left else "right",
                   clip_on=True)  # fmt: skip
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.grid(visible=True, axis="x", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylabel("found", fontsize=SMALL, rotation=0, ha="right", va="center")


def shade_findings(axes: Axes, rows: list[tuple[str, pd.DataFrame]]) -> None:
    """Shade the steps of findings, but for those that fill most of the axis, and for single rows far apart."""
    first, last = axes.get_xlim()
    for _, found in rows:
        apart = found["diagnosis"].isin(SINGLE_ROWS).to_numpy()
        for row in found[~apart].to_dict("records"):
            start, width = _bar(row["first_step"], row["last_step"], last - first)
            if width < WIDEST * (last - first):
                axes.axvspan(start, start + width, color=colour_of(found), alpha=0.1, linewidth=0, zorder=0)


def colour_of(found: pd.DataFrame) -> str:
    """Return the colour of a finding: that of a fault, or of what is only worth knowing."""
    return VERMILION if found["fault"].any() else GREY


def draw_uniform(axes: Axes, result: Curve, reach: Floats) -> list[float]:
    """Draw ln V, the loss of a model that knows nothing, if it lies near the losses; return what the axis must hold."""
    held = []
    for size in dict.fromkeys(facts.vocabulary for facts in result.logs):
        level = math.log(size) if size else math.inf
        if len(reach) and reach.min() <= level <= reach.max() + NEAR * (reach.max() - reach.min()):
            axes.axhline(level, color="black", linestyle=":", linewidth=1.1,
                         label=f"ln V = {level:.3f}: all {format_count(size or 0)} entries as likely")  # fmt: skip
            held.append(level)
    return held


def draw_restarts(axes: Axes, logs: Sequence[Log], looks: Sequence[LogLook]) -> None:
    """Draw the steps that runs went on from after they had gone back."""
    pairs = zip(logs, looks, strict=True)
    found = [(restart, look) for log, look in pairs for restart in log.restarts[-MOST_RESTARTS:]]
    for place, (restart, look) in enumerate(found):
        steps = f" from step {format_count(restart.last_step)} to {format_count(restart.next_step)}"
        told = f"restart: the run went back{steps if len(found) == 1 else ', and on from here'}"
        axes.axvline(restart.next_step, color=look.train if look.name else "black", linestyle=(0, (6, 4)),
                     linewidth=1.0, alpha=0.7, label="_" if place else told)  # fmt: skip


def draw_partings(axes: Axes, result: Curve, looks: Sequence[LogLook]) -> None:
    """Draw the step from which each other run parts from the first."""
    for pair, look in zip(result.partings, looks[1:], strict=True):
        if pair.parting is not None:
            name = f"{look.name}parts from the first at step {format_count(pair.parting.step)}"
            axes.axvline(pair.parting.step, color=look.train, linestyle=":", linewidth=1.4, label=legend_name(name))


def _bar(first: int, last: int, wide: float) -> tuple[float, float]:
    """Return where a mark begins and how wide it is: wide enough to be seen."""
    width = max(float(last - first), THINNEST * wide)
    return (first + last) / 2 - width / 2, width
