"""Where two models differ: panels of the picture of `lossprobe compare`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lossprobe.analysis.compare.byte_comparison import ByteComparison
from lossprobe.analysis.compare.changes import UNRANKED, Changes
from lossprobe.analysis.compare.tokens import TokenComparison
from lossprobe.analysis.stats.interval import Interval
from lossprobe.report.plots.ranges import MOST_ROWS, Side, counted, draw_ranges, ends_of, name_rows
from lossprobe.report.style import (
    BLUE,
    GREY,
    VERMILION,
    cut,
    drawable,
    in_text,
    label,
    legend,
    legend_name,
    model_names,
)
from lossprobe.units import format_count, plural

GROUP_WIDTH = 28
SPAN_WIDTH = 32
DIFFERENCE = "difference of the mean loss (nats per token); above 0: {} is worse"


def rows_of(table: pd.DataFrame, *, whole: bool) -> int:
    """Return how many rows a panel of this table has, with one for the whole text."""
    return min(len(table), MOST_ROWS) + whole


def largest_both_ways(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the rows that get a place: the first ones for the worse, and as many for the better."""
    worse = table[measure] > 0
    most = MOST_ROWS // 2
    return pd.concat([table[worse].head(most), table[~worse].head(most)])


def draw_by_context(axes: Axes, comparison: TokenComparison, second: str) -> None:
    """Draw the mean difference with its interval by context, below that of all tokens."""
    table = comparison.by_position
    names = [
        f"context {_span(first, last)}  ({format_count(int(tokens))})"
        for first, last, tokens in zip(table["context"], table["context_last"], table["tokens"], strict=True)
    ]
    ends = ends_of(table, "mean_difference_nats")
    remarks = _draw_differences(axes, _with_whole(comparison, ends), [_whole_name(comparison), *names])
    label(axes, DIFFERENCE.format(second), "", f"by context (tokens){remarks}")


def draw_groups(axes: Axes, comparison: TokenComparison, changes: Changes, second: str) -> None:
    """Draw the mean difference of each group with its interval, below that of all tokens; open: not significant.

    Groups that were not tested are crosses.
    """
    table = changes.table.head(MOST_ROWS)
    marked = "\u27e6{}\u27e7" if changes.by == "type" else "{}"
    groups = [marked.format(group) if group else f"(no {changes.by})" for group in table["group"]]
    names = model_names(groups, GROUP_WIDTH)
    counts = [counted(name, format_count(int(count))) for name, count in zip(names, table["tokens"], strict=True)]
    ends = _with_whole(comparison, ends_of(table, "mean_difference_nats"))
    significant = table["significant"].reset_index(drop=True)
    remarks = _draw_differences(axes, ends, [_whole_name(comparison), *counts], significant)
    of = "" if len(table) == changes.groups else f", {len(table)} of {plural(changes.groups or 0, 'group')}"
    order = "" if changes.by in UNRANKED else ", largest contribution first"
    tests = "; filled: changed (Holm, 5 %)" if significant.notna().any() else ""
    crosses = "; crosses: not tested" if significant.isna().any() else ""
    label(axes, DIFFERENCE.format(second), "", f"by {changes.by} (tokens){of}{order}{tests}{crosses}{remarks}")


def draw_tokens(axes: Axes, table: pd.DataFrame, models: tuple[str, str], most: float) -> None:
    """Draw both losses of the tokens that changed most, in their text, on an axis that ends at `most` nats."""
    names = [in_text(*words) for words in zip(table["before"], table["characters"], table["after"], strict=True)]
    _draw_pairs(axes, table["first_loss_nats"], table["second_loss_nats"], names, models)
    axes.set_xlim(0, most)
    name_rows(axes, np.arange(len(table)), names, text=True)
    label(axes, "loss of the token (nats)", "", "tokens that changed most: for the worse, then for the better")
    legend(axes)


def draw_by_cut(axes: Axes, comparison: ByteComparison, models: Sequence[str]) -> None:
    """Draw the difference in bits per byte by the place of the cut, below that of all bytes."""
    table, whole = comparison.by_cut, comparison.difference
    ends = _stacked(
        whole.difference_bits_per_byte,
        whole.difference_bits_per_byte_interval,
        ends_of(table, "difference_bits_per_byte"),
    )
    first, second = models
    cuts = [str(name).replace("the first", first).replace("the second", second) for name in table["cut"]]
    names = ["all bytes", *(f"{drawable(name)}  ({share:.1%})"
                            for name, share in zip(cuts, table["share_of_bytes"], strict=True))]  # fmt: skip
    remarks = _draw_differences(axes, ends, names)
    label(axes, f"difference (bits per byte); above 0: {second} is worse", "",
          f"by the place of the cut (bytes){remarks}")  # fmt: skip


def draw_spans(axes: Axes, table: pd.DataFrame, models: tuple[str, str]) -> None:
    """Draw what both models need for the spans of text that changed most."""
    places = zip(table["text"], table["document"], table["byte_start"], strict=True)
    names = [
        counted(f"\u27e6{cut(str(text), SPAN_WIDTH)}\u27e7", f"{document}, byte {format_count(int(start))}")
        for text, document, start in places
    ]
    _draw_pairs(axes, table["first_bits"], table["second_bits"], names, models)
    name_rows(axes, np.arange(len(table)), names, text=True)
    label(
        axes,
        "loss of the span (bits)",
        "",
        "spans that changed most (document, first byte): for the worse, then for the better",
    )
    legend(axes)


def _draw_differences(
    axes: Axes, ends: pd.DataFrame, names: Sequence[str], significant: pd.Series | None = None
) -> str:
    """Draw differences row by row, the whole one first and in its own look; return what the title must say of them.

    Args:
        axes: where.
        ends: the differences and their intervals, that of the whole text first.
        names: of the rows.
        significant: of the others, whether each changed; NA where it was not tested; None where no test is shown.
    """
    rows = np.arange(len(ends))
    others = rows > 0
    sides = [Side(_only(ends, ~others), VERMILION, "D"), Side(_only(ends, others), BLUE, "o")]
    if significant is not None:
        tested = np.array([True, *significant.notna()])
        opened = np.array([False, *~significant.to_numpy(bool, na_value=False)])
        sides[1] = Side(_only(ends, others & tested), BLUE, "o", open=opened)
        sides.append(Side(_only(ends, others & ~tested), BLUE, "x"))
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
    remarks = draw_ranges(axes, rows, sides, 0.0)
    name_rows(axes, rows, names)
    return remarks


def _only(ends: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Return values and intervals of these rows; NaN in the others."""
    kept = ends.copy()
    kept[~rows] = np.nan
    return kept


def _draw_pairs(axes: Axes, first: pd.Series, second: pd.Series, names: Sequence[str], models: tuple[str, str]) -> None:
    """Draw two numbers a row, joined by a line."""
    rows = np.arange(len(names))
    axes.hlines(rows, first, second, color=GREY, linewidth=1.2)
    for values, name, marker, colour, fill in (
        (first, models[0], "o", BLUE, "white"),
        (second, models[1], "s", VERMILION, VERMILION),
    ):
        axes.plot(values, rows, marker, color=colour, markerfacecolor=fill, markersize=5, label=legend_name(name),
                  clip_on=False, zorder=3)  # fmt: skip
    axes.set_xlim(left=0)


def _with_whole(comparison: TokenComparison, ends: pd.DataFrame) -> pd.DataFrame:
    difference = comparison.difference
    return _stacked(difference.mean_difference_nats, difference.mean_difference_nats_interval, ends)


def _stacked(value: float | None, interval: Interval, ends: pd.DataFrame) -> pd.DataFrame:
    whole = pd.DataFrame([[value, *interval]], columns=ends.columns).astype(float)
    return pd.concat([whole, ends], ignore_index=True)


def _whole_name(comparison: TokenComparison) -> str:
    return f"all tokens  ({format_count(comparison.counts.tokens)})"


def _span(first: int, last: int) -> str:
    return format_count(first) if first == last else f"{format_count(first)}-{format_count(last)}"
