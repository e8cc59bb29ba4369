"""Draws the picture of `lossprobe compare`."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, PercentFormatter

from lossprobe.analysis.compare.byte_comparison import ByteComparison
from lossprobe.analysis.compare.compare import Comparison
from lossprobe.analysis.compare.tokens import TokenComparison
from lossprobe.report.style import (
    BLUE,
    GREY,
    SCALE,
    VERMILION,
    drawable,
    interval_words,
    label,
    legend,
    model_names,
    new_figure,
    text_heading,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible


def plot_compare(run: Run, result: Comparison) -> Figure:
    """Return a figure of how two models differ.

    It has the mean difference by context, the losses of each token under both models, and the share of all change that
    the most changed tokens have. For models with different tokenizers it has the difference in bits per byte, for the
    groups of bytes in `by_cut`.
    """
    comparison = result.token_comparison
    if comparison is None:
        assert result.byte_comparison is not None
        return _plot_bytes(run, result.byte_comparison)
    figure = new_figure(13, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.1, 1, 1])
    _draw_positions(left, comparison)
    _draw_losses(figure, middle, comparison)
    _draw_cumulative(right, comparison)
    figure.suptitle(f"{_names(comparison)}\non {drawable(text_heading(run))}", fontsize=11, parse_math=False)
    return figure


def _names(comparison: TokenComparison | ByteComparison) -> str:
    first, second = model_names([comparison.first, comparison.second], 40)
    return f"{second} − {first}"


def _draw_positions(axes: Axes, comparison: TokenComparison) -> None:
    """Draw the mean difference with its interval, by context and over all tokens."""
    table = comparison.by_position
    centre = np.sqrt(table["context"].astype(float) * table["context_last"].astype(float))
    mean = table["mean_difference_nats"]
    if table["low"].notna().any():
        axes.fill_between(centre, table["low"], table["high"], color=BLUE, alpha=0.18, linewidth=0,
                          label="95 % interval")  # fmt: skip
    axes.plot(centre, mean, "o-", color=BLUE, markersize=4, linewidth=1.2, label="mean by context")
    axes.axhline(0.0, color=GREY, linestyle="--", linewidth=1)
    difference = comparison.difference.mean_difference_nats
    if difference is not None:
        axes.axhline(difference, color=VERMILION, linewidth=1.4, linestyle="-.",
                     label=f"all tokens: {difference:+.4f}")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    legend(axes, fontsize=8)
    label(axes, "tokens of context (log scale)", "difference of the mean loss (nats per token)",
          f"above 0: the second is worse; over {interval_words(comparison.interval_unit)}")  # fmt: skip


def _draw_losses(figure: Figure, axes: Axes, comparison: TokenComparison) -> None:
    """Draw a two-dimensional histogram of the tokens' losses under both models."""
    cells = comparison.scatter
    squares = [
        Rectangle((x, y), width, width)
        for x, y, width in zip(cells["first_low_nats"], cells["second_low_nats"], cells["width_nats"], strict=True)
    ]
    drawn = PatchCollection(squares, cmap=colormaps[SCALE], norm=LogNorm(1, max(2, int(cells["count"].max()))))
    drawn.set_array(cells["count"].to_numpy(float))
    axes.add_collection(drawn)
    top = 1.0 + float(max(cells["first_low_nats"].max(), cells["second_low_nats"].max()))
    axes.plot([0, top], [0, top], color=VERMILION, linestyle="--", linewidth=1)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_aspect("equal")
    figure.colorbar(drawn, ax=axes, label="tokens (log scale)", fraction=0.045, pad=0.02)
    found = comparison.difference.correlation
    correlation = "n/a" if found is None else f"{found:.3f}"
    first, second = model_names([comparison.first, comparison.second], 24)
    label(axes, f"loss of {first} (nats)", f"loss of {second} (nats)",
          f"each token; correlation {correlation}")  # fmt: skip


def _draw_cumulative(axes: Axes, comparison: TokenComparison) -> None:
    """Draw the share of the summed absolute change in the most changed tokens, by the share of tokens."""
    table = comparison.cumulative
    axes.plot(table["share_of_tokens"], table["share_of_change"], "o-", color=BLUE, markersize=4, linewidth=1.2)
    axes.plot(table["share_of_tokens"], table["share_of_tokens"], color=GREY, linestyle="--", linewidth=1,
              label="if all changed alike")  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(axes, fontsize=8, loc="upper left")
    label(axes, "most changed tokens (log scale)", "share of the summed absolute change", "how few tokens carry it")


def _plot_bytes(run: Run, comparison: ByteComparison) -> Figure:
    """Return a figure of the difference in bits per byte with its interval, for all bytes and each row of `by_cut`."""
    table = comparison.by_cut
    figure = new_figure(9, 1.8 + 0.5 * len(table))
    axes = figure.subplots()
    names = ["all bytes", *(drawable(str(cut)) for cut in table["cut"])]
    whole, interval = comparison.difference, comparison.difference.difference_bits_per_byte_interval
    values = [whole.difference_bits_per_byte, *table["difference_bits_per_byte"]]
    lows = [interval.low, *table["low"]]
    highs = [interval.high, *table["high"]]
    for row, (value, low, high) in enumerate(zip(values, lows, highs, strict=True)):
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=BLUE, linewidth=2 if row == 0 else 1.2)
        axes.plot([value], [row], "D" if row == 0 else "o", color=BLUE, markersize=6)
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    label(axes, "difference (bits per byte); above 0: the second is worse", "",
          f"{_names(comparison)}\non {visible(run.text_name, 40)}, through bytes")  # fmt: skip
    return figure
