"""Draws the picture of `lossprobe compare`."""

from __future__ import annotations

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from lossprobe.analysis.compare.byte_comparison import CONTEXTS, ByteComparison
from lossprobe.analysis.compare.compare import Comparison
from lossprobe.analysis.compare.tokens import TokenComparison
from lossprobe.report.plots.changes import (
    draw_by_context,
    draw_by_cut,
    draw_groups,
    draw_spans,
    draw_tokens,
    largest_both_ways,
    rows_of,
)
from lossprobe.report.plots.divergence import divergence_slices, draw_divergence, draw_divergence_slices
from lossprobe.report.plots.ranges import AROUND, ROW
from lossprobe.report.style import (
    BLUE,
    GREY,
    SCALE,
    SMALL,
    VERMILION,
    interval_line,
    label,
    legend,
    model_names,
    new_figure,
    text_heading,
)
from lossprobe.run.reader import Run
from lossprobe.units import visible

NAME_WIDTH, AXIS_NAME_WIDTH = 30, 24  # characters
PAIR = 3.2  # inches, of the two panels beside each other


def plot_compare(run: Run, result: Comparison) -> Figure:
    """Return both losses against each other, how few tokens carry the change, and where the models differ.

    Where: by what the comparison was asked for; by token, the largest changes and the difference by context. With the
    divergence of the distributions, that too, as a whole and by slice. Models with different tokens: the difference in
    bits per byte by the place of the cut, and the largest changes.
    """
    if result.token_comparison is None:
        assert result.byte_comparison is not None
        return _plot_bytes(run, result.byte_comparison)
    comparison, changes, divergence = result.token_comparison, result.changes, result.divergence
    assert changes is not None
    by_token = changes.by == "token"
    heights = [PAIR, AROUND + ROW * rows_of(comparison.by_position if by_token else changes.table, whole=True)]
    tokens = largest_both_ways(changes.table, "difference_nats") if by_token else changes.table.head(0)
    if len(tokens):
        heights.append(AROUND + ROW * len(tokens))
    if divergence is not None:
        heights += [PAIR, AROUND + ROW * rows_of(divergence_slices(divergence), whole=True)]
    first, second = model_names([comparison.first, comparison.second], NAME_WIDTH)
    known = comparison.difference.mean_difference_nats_interval.low is not None
    intervals = interval_line(comparison.interval_unit, known=known)
    figure = new_figure(sum(heights) + 0.6, f"{second} − {first} on {text_heading(run)}", intervals)
    parts = iter(_parts(figure, heights))
    left, right = next(parts).subplots(1, 2, width_ratios=[1.2, 1])
    names = model_names([comparison.first, comparison.second], AXIS_NAME_WIDTH)
    most = _draw_losses(left, comparison, names)
    _draw_cumulative(right, comparison)
    if by_token:
        draw_by_context(next(parts).subplots(), comparison, second)
        if len(tokens):
            draw_tokens(next(parts).subplots(), tokens, (first, second), most)
    else:
        draw_groups(next(parts).subplots(), comparison, changes, second)
    if divergence is not None:
        draw_divergence(next(parts), divergence, (first, second))
        draw_divergence_slices(next(parts).subplots(), divergence, (first, second))
    return figure


def _parts(figure: Figure, heights: list[float]) -> list[SubFigure]:
    """Return one part of the figure for each height, from the top on."""
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    return [part for (part,) in parts]


def _draw_losses(axes: Axes, comparison: TokenComparison, names: list[str]) -> float:
    """Draw a two-dimensional histogram of the tokens' losses under both models; return the end of its axes."""
    cells = comparison.scatter
    squares = [
        Rectangle((x, y), width, width)
        for x, y, width in zip(cells["first_low_nats"], cells["second_low_nats"], cells["width_nats"], strict=True)
    ]
    top = 1.0
    if len(cells):
        drawn = PatchCollection(squares, cmap=colormaps[SCALE], norm=LogNorm(1, max(2, int(cells["count"].max()))))
        drawn.set_array(cells["count"].to_numpy(float))
        axes.add_collection(drawn)
        top += float(max(cells["first_low_nats"].max(), cells["second_low_nats"].max()))
        bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.03)
        bar.set_label("tokens (log scale)", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL, which="both")
    axes.plot([0, top], [0, top], color=VERMILION, linestyle="--", linewidth=1)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=(1, 2, 5, 10), integer=True))
    axes.set_box_aspect(1)
    found = comparison.difference.correlation
    correlation = "n/a" if found is None else f"{found:.3f}"
    label(axes, f"loss of {names[0]} (nats)", f"loss of {names[1]} (nats)", f"each token; correlation {correlation}")
    return top


def _draw_cumulative(axes: Axes, comparison: TokenComparison) -> None:
    """Draw the share of the summed absolute change in the most changed tokens, by the share of tokens."""
    table = comparison.cumulative
    axes.plot(table["share_of_tokens"], table["share_of_change"], "o-", color=BLUE, markersize=4, linewidth=1.2,
              label="these models")  # fmt: skip
    axes.plot(table["share_of_tokens"], table["share_of_tokens"], color=GREY, linestyle="--", linewidth=1,
              label="if all changed alike")  # fmt: skip
    axes.set_xscale("log")
    axes.set_ylim(0, 1.03)
    axes.set_box_aspect(1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "most changed tokens (share of all, log scale)", "share of the summed absolute change",
          "how few tokens carry the change")  # fmt: skip
    legend(axes)


def _plot_bytes(run: Run, comparison: ByteComparison) -> Figure:
    """Return where the difference in bits per byte comes from: by the place of the cut, and the largest spans."""
    heights = [AROUND + ROW * rows_of(comparison.by_cut, whole=True)]
    spans = largest_both_ways(comparison.largest, "difference_bits")
    if len(spans):
        heights.append(AROUND + ROW * len(spans))
    first, second = model_names([comparison.first, comparison.second], NAME_WIDTH)
    known = comparison.difference.difference_bits_per_byte_interval.low is not None
    intervals = interval_line(comparison.interval_unit, known=known)
    contexts = [note for note in comparison.notes if note.startswith(CONTEXTS)]
    title = f"{second} − {first} on {visible(run.text_name, 40)}, through bytes"
    figure = new_figure(sum(heights) + 0.6, title, intervals, *contexts)
    parts = _parts(figure, heights)
    draw_by_cut(parts[0].subplots(), comparison, model_names([comparison.first, comparison.second], AXIS_NAME_WIDTH))
    for part in parts[1:]:
        draw_spans(part.subplots(), spans, (first, second))
    return figure
