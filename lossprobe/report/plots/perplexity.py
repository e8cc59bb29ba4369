"""Draws the picture of `lossprobe perplexity`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossprobe.analysis.perplexity import Perplexity, cluster_totals
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.report.plots.ranges import (
    AROUND,
    MOST_ROWS,
    ROW,
    Side,
    counted,
    draw_ranges,
    ends_of,
    frame_ranges,
    name_rows,
)
from lossprobe.report.style import (
    BLUE,
    GREEN,
    VERMILION,
    heading,
    interval_line,
    interval_words,
    label,
    legend,
    model_names,
    new_figure,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count

DISTRIBUTION = 3.6  # inches, of its panel
MOST_BARS = 40
SAME = 1e-6  # nats: losses that are no further apart have one bar, of a width of its own
MEAN_LOSS = "mean loss (nats per token); smaller is better"
GROUP_WIDTH = 30


def plot_perplexity(run: Run, result: Perplexity) -> Figure:
    """Return how the documents' losses are spread, with the mean of all tokens and the reference levels.

    With groups, the mean of each of the hardest and its interval too, on the same scale.
    """
    groups = None if result.groups is None else result.groups.head(MOST_ROWS)
    heights = [DISTRIBUTION] if groups is None else [DISTRIBUTION, AROUND + ROW * len(groups)]
    low, high = result.per_token.nll_nats_per_token_interval
    figure = new_figure(sum(heights) + 0.4, heading(run),
                        interval_line(result.interval_unit, known=low is not None))  # fmt: skip
    panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False, sharex=True)[:, 0]
    clusters = find_clusters(run)
    totals = cluster_totals(run, clusters)
    losses = totals["nats"] / totals["tokens"]
    _draw_distribution(panels[0], losses, interval_words(clusters.unit), result)
    held = [losses.min(), losses.max(), result.per_token.nll_nats_per_token]
    held += [level for level, *_ in _levels(result)]
    held += [end for end in (low, high) if end is not None]
    if groups is None:
        frame_ranges(panels[0], held, least=0.0)
    else:
        _draw_groups(panels[1], result, held)
    panels[0].tick_params(labelbottom=True)
    return figure


def _draw_distribution(axes: Axes, losses: np.ndarray, unit: str, result: Perplexity) -> None:
    """Draw how many documents (or blocks) have each mean loss, the mean of all tokens, and the reference levels."""
    first, last = float(losses.min()), float(losses.max())
    bars = min(MOST_BARS, max(10, 2 * round(len(losses) ** 0.5)))
    if last - first < SAME:
        first, last, bars = max(0.0, first - 0.05), last + 0.05, 1
    counts, edges = np.histogram(losses, bars, (first, last))
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=BLUE, alpha=0.55, edgecolor="white",
             linewidth=0.5, label=f"{unit} ({format_count(len(losses))})")  # fmt: skip
    mean, (low, high) = result.per_token.nll_nats_per_token, result.per_token.nll_nats_per_token_interval
    if low is not None and high is not None:
        axes.axvspan(max(low, 0.0), high, color="black", alpha=0.15, linewidth=0, label="95 % interval of the mean")
    axes.axvline(mean, color="black", linewidth=1.6, label=f"mean of all tokens: {mean:.3f}")
    _draw_levels(axes, result, named=True)
    axes.set_ylim(0, 1.08 * float(counts.max()))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    label(axes, MEAN_LOSS, unit, f"how the losses of {unit} are spread")
    legend(axes)


def _draw_groups(axes: Axes, result: Perplexity, held: list[float]) -> None:
    """Draw the mean loss of the hardest groups, each with its interval."""
    assert result.groups is not None
    groups = result.groups.head(MOST_ROWS)
    rows = np.arange(len(groups))
    _draw_levels(axes, result, named=False)
    axes.axvline(result.per_token.nll_nats_per_token, color="black", linewidth=1.0)
    remarks = draw_ranges(axes, rows, [Side(ends_of(groups, "mean_loss_nats"), BLUE, "o")], *held, least=0.0)
    shown = f", {len(groups)} of {format_count(len(result.groups))} groups" if len(groups) < len(result.groups) else ""
    whose = "document {}" if result.by == "document" else "{}"
    names = model_names([whose.format(group) if str(group) else f"(no {result.by})" for group in groups["group"]],
                        GROUP_WIDTH)  # fmt: skip
    name_rows(axes, rows, [counted(name, format_count(int(count)))
                           for name, count in zip(names, groups["tokens"], strict=True)])  # fmt: skip
    label(axes, MEAN_LOSS, "", f"by {result.by} (tokens), hardest first{shown}{remarks}")


def _draw_levels(axes: Axes, result: Perplexity, *, named: bool) -> None:
    """Draw the losses that a model without context, and one that knows nothing, would have."""
    for level, name, colour, style in _levels(result):
        text = f"{name}: {level:.3f}" if named else "_"
        axes.axvline(level, color=colour, linestyle=style, linewidth=1.4, label=text)


def _levels(result: Perplexity) -> list[tuple[float, str, str, str]]:
    """Return loss, name, colour and line of each reference level; that of unigrams only where it can be compared."""
    uniform = (result.uniform_nats, "uniform (log V)", VERMILION, ":")
    return [(result.unigram_nats, "unigram", GREEN, "--"), uniform] if result.unigram_comparable else [uniform]
