"""Draws the picture of `lossprobe hardest`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossprobe.analysis.hardest import Hardest
from lossprobe.report.plots.ranges import (
    AROUND,
    MOST_ROWS,
    NO_LINES,
    ROW,
    Side,
    counted,
    draw_ranges,
    ends_of,
    name_rows,
)
from lossprobe.report.style import BLUE, ORANGE, cut, heading, in_order, in_text, label, new_figure
from lossprobe.run.reader import Run
from lossprobe.units import format_count

NAME_WIDTH = 36
MEAN = "mean loss (nats per token)"
KINDS = {"occurrence": "first occurrences in the window, and repeats", "form": "by the form of the token"}


def plot_hardest(run: Run, result: Hardest) -> Figure:
    """Return a bar for each of the hardest tokens, types or documents, in the order of what it shows; or all classes.

    Types have two panels, one by total and one by mean; classes and values of a field have their intervals.
    """
    panels = _panels(result)
    heights = [AROUND - 0.3 + ROW * len(table) for _, table in panels]
    nothing = () if len(result.table) else (result.finding,)
    figure = new_figure(sum(heights) + 0.5, heading(run), f"hardest by {result.by}", *nothing)
    parts = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw = {"token": _draw_tokens, "type": _draw_types, "document": _draw_documents}.get(result.by, _draw_classes)
    for axes, (kind, table) in zip(parts, panels, strict=True):
        draw(axes, kind, table, len(result.table) if len(panels) == 1 else _size(result.table, kind))
    if result.by == "class":  # on one scale
        longest = max(axes.get_xlim()[1] for axes in parts)
        for axes in parts:
            axes.set_xlim(0, longest)
    return figure


def _panels(result: Hardest) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each panel, hardest first: of each ranking of types, of each kind of classes, or all."""
    column = {"type": "hardest_by", "class": "kind"}.get(result.by)
    table = result.table
    if column is None:
        return [
            ("", table.head(MOST_ROWS)) if result.by in ("token", "document") else (result.by, table.head(MOST_ROWS))
        ]
    most = MOST_ROWS // max(1, table[column].nunique())
    parts = [(str(kind), table[table[column] == kind]) for kind in table[column].unique()]
    if result.by == "class":
        parts = [(kind, part.sort_values("mean_loss_nats", ascending=False, kind="stable")) for kind, part in parts]
    return [(kind, part.head(most)) for kind, part in parts]


def _size(table: pd.DataFrame, kind: str) -> int:
    column = "hardest_by" if "hardest_by" in table else "kind"
    return int((table[column] == kind).sum())


def _draw_tokens(axes: Axes, _kind: str, table: pd.DataFrame, of: int) -> None:
    names = [in_text(*words) for words in zip(table["before"], table["characters"], table["after"], strict=True)]
    if "count" in table:
        names = [
            f"{name} \u00d7{count}" if count > 1 else name for name, count in zip(names, table["count"], strict=True)
        ]
    _draw_bars(axes, table["loss_nats"], names, BLUE)
    _finish(axes, "loss of the token (nats)", f"tokens in their text{_shown(table, of)}", names, text=True)


def _draw_types(axes: Axes, kind: str, table: pd.DataFrame, of: int) -> None:
    names = [
        in_order(f"\u27e6{cut(str(text), NAME_WIDTH - 14)}\u27e7") + f" \u00d7{format_count(int(count))}"
        for text, count in zip(table["text"], table["count"], strict=True)
    ]
    if kind == "total":
        _draw_bars(axes, 100.0 * table["share_of_loss"], names, BLUE)
        x, title = "share of the total loss (%)", "vocabulary entries that carry the most loss"
    else:
        _draw_bars(axes, table["mean_loss_nats"], names, ORANGE)
        x, title = MEAN, "vocabulary entries with the highest mean loss"
    _finish(axes, x, f"{title} (\u00d7 occurrences){_shown(table, of)}", names, text=True)


def _draw_documents(axes: Axes, _kind: str, table: pd.DataFrame, of: int) -> None:
    names = [
        f"{document}: " + in_order(cut(begins, NAME_WIDTH - len(str(document)) - 2))
        for document, begins in zip(table["document"], table["begins"], strict=True)
    ]
    _draw_bars(axes, table["mean_loss_nats"], names, BLUE)
    _finish(axes, MEAN, f"documents, with how they begin{_shown(table, of)}", names, text=True)


def _draw_classes(axes: Axes, kind: str, table: pd.DataFrame, of: int) -> None:
    rows = np.arange(len(table))
    names = [
        counted(cut(str(name), NAME_WIDTH) or f"(no {kind})", f"{share:.1%}")
        for name, share in zip(table["class" if "class" in table else "group"], table["share_of_tokens"], strict=True)
    ]
    remarks = draw_ranges(axes, rows, [Side(ends_of(table, "mean_loss_nats"), BLUE, "o")], 0.0, least=0.0)
    intervals = "" if NO_LINES in remarks else ", 95 % intervals"
    title = f"{KINDS.get(kind, f'by {kind}')} (share of the tokens){intervals}{_shown(table, of)}{remarks}"
    _finish(axes, MEAN, title, names)


def _draw_bars(axes: Axes, values: pd.Series, names: Sequence[str], colour: str) -> None:
    axes.barh(np.arange(len(names)), values.astype(float), color=colour, height=0.7)
    axes.set_xlim(left=0)


def _finish(axes: Axes, x: str, title: str, names: Sequence[str], *, text: bool = False) -> None:
    name_rows(axes, np.arange(len(names)), names, text=text)
    label(axes, x, "", title)


def _shown(table: pd.DataFrame, of: int) -> str:
    return f", {len(table)} of {format_count(of)}" if len(table) < of else ""
