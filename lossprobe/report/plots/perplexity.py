"""Draws the picture of `lossprobe perplexity`."""

from __future__ import annotations

from matplotlib.figure import Figure

from lossprobe.analysis.perplexity import Perplexity
from lossprobe.report.style import (
    BLUE,
    GREEN,
    VERMILION,
    drawable,
    heading,
    interval_words,
    label,
    legend,
    new_figure,
)
from lossprobe.run.reader import Run
from lossprobe.units import visible

BARS = 30


def plot_perplexity(run: Run, result: Perplexity) -> Figure:
    """Return a figure of the mean loss of all tokens and of each group, with intervals and reference levels."""
    groups = None if result.groups is None else result.groups.head(BARS)
    count = 0 if groups is None else len(groups)
    figure = new_figure(9, 2.6 + 0.24 * count)
    axes = figure.subplots()
    names = ["all tokens"]
    title = f"{heading(run)}: 95 % intervals over {interval_words(result.interval_unit)}"
    if groups is not None and result.groups is not None:
        names += [visible(f"{result.by} {group}", 40) for group in groups["group"]]
        title += f"; {count} of {len(result.groups)} groups, hardest first" if count < len(result.groups) else ""
    token = result.per_token
    means = [token.nll_nats_per_token, *([] if groups is None else groups["mean_loss_nats"])]
    lows = [token.nll_nats_per_token_interval.low, *([] if groups is None else groups["low"])]
    highs = [token.nll_nats_per_token_interval.high, *([] if groups is None else groups["high"])]
    for row, (mean, low, high) in enumerate(zip(means, lows, highs, strict=True)):
        if low is not None and high is not None:
            axes.plot([low, high], [row, row], color=BLUE, linewidth=2 if row == 0 else 1.2)
        axes.plot([mean], [row], "o" if row else "D", color=BLUE, markersize=5)
    for level, name, colour, style in (
        (result.unigram_nats, "unigram", GREEN, "--"),
        (result.uniform_nats, "uniform (log V)", VERMILION, ":"),
    ):
        axes.axvline(level, color=colour, linestyle=style, linewidth=1.4, label=f"{name}: {level:.3f}")
    axes.set_yticks(range(len(names)), [drawable(name) for name in names], fontsize=8, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    legend(axes, fontsize=8, loc="best")
    label(axes, "mean loss (nats per token); smaller is better", "", title)
    axes.grid(visible=False, axis="y")
    return figure
