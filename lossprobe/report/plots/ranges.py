"""Rows of values with their intervals, one below another: how pictures show groups side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lossprobe.report.fonts import MONOSPACE, PROPORTIONAL
from lossprobe.report.style import SMALL, in_order, legend_name

MOST_ROWS = 30
ROW = 0.22  # inches
AROUND = 1.4  # inches, of what stands around the rows: title, axis, legend
LONG_INTERVAL = 5.0  # in median lengths: a longer one, of a handful of tokens, does not set the axis
BEYOND = "arrows: the interval goes on"
NO_LINE = "no line: too little text for an interval"
NO_LINES = "too little text for intervals"


@dataclass(frozen=True)
class Side:
    """What is drawn in every row: of one model, or of one text.

    Attributes:
        ends: value, low and high of each row; NaN where there is none.
        colour, marker: how it looks.
        name: its name in the legend; empty for none.
        shift: how far below the middle of its row it stands, in rows.
        open: rows whose marker is open; None for no row.
    """

    ends: pd.DataFrame
    colour: str
    marker: str
    name: str = ""
    shift: float = 0.0
    open: np.ndarray | None = None


def ends_of(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> pd.DataFrame:
    """Return the columns of a table that hold a value and its interval, under the names that `Side.ends` has."""
    return table[[value, low, high]].astype(float).set_axis(["value", "low", "high"], axis=1)


def draw_ranges(axes: Axes, rows: np.ndarray, sides: Sequence[Side], *beside: float, least: float = -math.inf) -> str:
    """Draw a marker a row and side, with its interval; return what the panel's title must say of them, if anything.

    The axis holds every value and all intervals but the longest: where one of these goes on, an arrow says so.

    Args:
        axes: where.
        rows: height of each row.
        sides: what to draw.
        beside: further numbers that the axis must hold.
        least: what the numbers can be at least; no interval is drawn below it.
    """
    limits = frame_ranges(axes, [*_usual(pd.concat([side.ends for side in sides])), *beside], least=least)
    arrows = []
    for side in sides:
        value, low, high = side.ends.to_numpy(float).T
        places = rows + side.shift
        low, high = np.maximum(low, least), np.where(np.isnan(low), np.nan, high)
        axes.hlines(places, low.clip(*limits), high.clip(*limits), color=side.colour, linewidth=1.6)
        for beyond, end, marker in ((low < limits[0], limits[0], "<"), (high > limits[1], limits[1], ">")):
            arrows += [(end, place, marker, side.colour) for place in places[beyond]]
        _draw_markers(axes, value, places, side)
    for end, place, marker, colour in arrows:
        axes.plot([end], [place], marker, color=colour, markersize=4, clip_on=False)
    ends = pd.concat([side.ends for side in sides])
    return "".join(f"; {words}" for words in (BEYOND if arrows else "", _unknown(ends)) if words)


def _unknown(ends: pd.DataFrame) -> str:
    """Return what is said of values without an interval; nothing if all have one."""
    known = ends["low"].notna()[ends["value"].notna()]
    return "" if known.all() else NO_LINE if known.any() else NO_LINES


def _draw_markers(axes: Axes, value: np.ndarray, places: np.ndarray, side: Side) -> None:
    """Draw the markers of a side: filled ones, and open ones."""
    opened = np.zeros(len(value), bool) if side.open is None else side.open
    name = legend_name(side.name) if side.name else "_"
    for which, fill in ((~opened, side.colour), (opened, "white")):
        if which.any():
            axes.plot(value[which], places[which], side.marker, color=side.colour, markerfacecolor=fill, markersize=5,
                      label=name, clip_on=False, zorder=3)  # fmt: skip
            name = "_"


def frame_ranges(axes: Axes, held: Sequence[float], *, least: float) -> tuple[float, float]:
    """Let an axis hold these numbers with a margin, and nothing below the least; return its ends."""
    first, last = (max(float(min(held)), least), float(max(held))) if len(held) else (0.0, 1.0)
    margin = 0.06 * (last - first) or 0.1 * abs(last) or 0.1
    limits = max(first - margin, least), last + margin
    axes.set_xlim(limits)
    return limits


def _usual(ends: pd.DataFrame) -> np.ndarray:
    """Return the numbers that an axis must hold: every value, and the ends of all intervals but very long ones."""
    value, low, high = ends.to_numpy(float).T
    length = high - low
    known = length[np.isfinite(length)]
    usual = length <= LONG_INTERVAL * (np.median(known) if len(known) else 0.0)
    return np.concatenate([value[np.isfinite(value)], low[usual], high[usual]])


def name_rows(axes: Axes, rows: np.ndarray, names: Sequence[str], *, text: bool = False) -> None:
    """Write the names, drawable ones, beside the rows, the first on top; `text`: in letters of one width.

    The panel gets its labels afterwards, because a long label must know how much room the names need.
    """
    family = MONOSPACE if text else PROPORTIONAL
    axes.set_yticks(rows, list(names), fontsize=SMALL, family=family, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(float(rows[-1]) + 0.6 if len(rows) else 0.6, -0.6)


def counted(name: str, count: str) -> str:
    """Return a drawable name with a number behind it, in this order whichever way the name runs."""
    return f"{in_order(name)}  ({count})"
