"""One function a result: numbers in, matplotlib Figure out. Draws what the result holds and computes nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lossprobe.analysis.hardest import Hardest
from lossprobe.analysis.perplexity import Perplexity
from lossprobe.analysis.positions import PositionLosses
from lossprobe.analysis.tokens import TokenLosses
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    MONOSPACE,
    MONOSPACE_ADVANCE,
    ORANGE,
    SCALE,
    VERMILION,
    drawable,
    heading,
    interval_words,
    label,
    new_figure,
    plain_text,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

STRIP_COLUMNS = 96
STRIP_LINES = 12
BARS = 30
BEFORE, AFTER = 24, 14  # characters shown around a token


def plot_tokens(run: Run, result: TokenLosses) -> Figure:
    """Return the histogram of losses with quantiles, over a strip of the text coloured by loss."""
    figure = new_figure(10, 7.4)
    upper, lower = figure.subplots(2, 1, height_ratios=[1, 1])
    bins = result.histogram
    upper.bar(bins["low_nats"], bins["count"], width=bins["high_nats"] - bins["low_nats"], align="edge", color=BLUE)
    upper.set_yscale("log")
    top = float(bins["count"].max())
    upper.set_ylim(0.7, top * 6)
    upper.set_xlim(0.0, float(bins["high_nats"].max()) * 1.02)
    for share, value in result.quantiles.items():
        upper.axvline(value, color=VERMILION, linewidth=1, linestyle="--")
        plain_text(upper, value, top * 5, f" {float(share):.0%}", color=VERMILION, fontsize=8, va="top", rotation=90)
    upper.axvline(result.mean_loss_nats, color="black", linewidth=1.2)
    plain_text(
        upper,
        result.mean_loss_nats,
        1.0,
        f"mean {result.mean_loss_nats:.3f}",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
        fontsize=8,
        ha="center",
        va="bottom",
    )
    label(
        upper,
        "loss (nats per token)",
        "tokens (log scale)",
        f"{heading(run)}: {format_count(result.tokens_scored)} tokens; dashed: quantiles",
    )
    draw_strip(figure, lower, result.strip)
    return figure


def draw_strip(figure: Figure, axes: Axes, strip: pd.DataFrame) -> None:
    """Draw consecutive tokens as running text on a background coloured by loss; grey where unscored."""
    losses = strip["loss_nats"].astype(float)
    scale = Normalize(0.0, max(1.0, float(np.nanquantile(losses, 0.98))))
    colours = colormaps[SCALE]
    size = 0.86 * figure.get_figwidth() * 72 / STRIP_COLUMNS / MONOSPACE_ADVANCE
    x = y = 0
    for text, loss in zip(strip["text"], losses, strict=True):
        shown = drawable(str(text))[:STRIP_COLUMNS].replace(" ", "\u00b7" if str(text).strip() == "" else " ")
        at_word = x > STRIP_COLUMNS - 14 and str(text).startswith(" ")
        if at_word or x + len(shown) > STRIP_COLUMNS:
            x, y = 0, y + 1
        if y >= STRIP_LINES:
            break
        colour = (0.85, 0.85, 0.85, 1.0) if np.isnan(loss) else colours(scale(loss))
        axes.add_patch(Rectangle((x, y), len(shown), 0.92, color=colour, linewidth=0))
        ink = "black" if sum(colour[:3]) > 1.4 else "white"
        axes.text(x, y + 0.68, shown, family=MONOSPACE, fontsize=size, color=ink, parse_math=False)
        x += len(shown)
        if str(text).endswith("\\n"):
            x, y = 0, y + 1
    axes.set_xlim(0, STRIP_COLUMNS)
    axes.set_ylim(max(STRIP_LINES // 2, y + 1), -0.2)
    axes.set_axis_off()
    axes.set_title(
        "the text around the hardest token, coloured by loss (\\n: line end; \u00b7: blank)", loc="left", fontsize=10
    )
    figure.colorbar(
        ScalarMappable(scale, colours), ax=axes, label="loss (nats)", extend="max", fraction=0.025, pad=0.01
    )


def plot_positions(run: Run, result: PositionLosses) -> Figure:
    """Return mean loss by position: every position with its band, bins with intervals, the fit, and the counts."""
    figure = new_figure(9, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    drawn = [*_draw_every(upper, result), *_draw_bins(upper, result)]
    if result.fit is not None:
        t = np.geomspace(1, float(result.every[result.axis].max()), 200)
        text = f"{result.fit.a_nats:.2f} + {result.fit.b_nats:.2f} (t + 1)^\u2212{result.fit.alpha:.2f} (descriptive)"
        upper.plot(t, result.fit.at(t), color="black", linestyle="--", linewidth=1.1, label=text)
    bottom, top = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    margin = 0.1 * (top - bottom or 1.0)
    upper.set_ylim(bottom - margin, top + margin)
    upper.set_xscale("log", base=2)
    upper.legend(fontsize=8)
    axis = "tokens of context (log scale)" if result.by == "context" else "position in the document (tokens, log scale)"
    label(
        upper,
        "",
        "mean loss (nats per token)",
        f"{heading(run)}: intervals over {interval_words(result.interval_unit)}",
    )
    lower.step(result.every[result.axis], result.every["count"], where="mid", color=GREY)
    lower.set_ylim(0, 1.15 * float(result.every["count"].max()))
    lower.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    label(lower, axis, "tokens")
    return figure


def _draw_every(axes: Axes, result: PositionLosses) -> list[float]:
    """Draw the mean at every position with its band, and return the means; not where each is a single token's loss."""
    every = result.every
    if result.bins == "geometric" and int(every["count"].max()) == 1:
        return []
    x = every[result.axis]
    if every["low"].notna().any():
        band = "95 % interval, every position"
        axes.fill_between(x, every["low"], every["high"], color=BLUE, alpha=0.18, linewidth=0, label=band)
    axes.plot(x, every["mean_loss_nats"], color=BLUE, linewidth=0.9, alpha=0.8, label="mean, every position")
    return list(every["mean_loss_nats"])


def _draw_bins(axes: Axes, result: PositionLosses) -> list[float]:
    """Draw the mean of every bin with its interval, and return the means and the ends of the intervals."""
    if result.bins != "geometric":
        return []
    bins = result.table
    centre = np.sqrt(bins[result.axis].astype(float) * bins[f"{result.axis}_last"].astype(float))
    mean, low, high = (bins[name] for name in ("mean_loss_nats", "low", "high"))
    style: dict[str, Any] = {"fmt": "o", "color": VERMILION, "capsize": 3, "markersize": 5}
    axes.errorbar(centre, mean, yerr=[mean - low, high - mean], label="mean and 95 % interval, bins", **style)
    return [*mean, *low, *high]


def plot_hardest(run: Run, result: Hardest) -> Figure:
    """Return a bar for each of the hardest tokens, types, documents or classes."""
    table = _first_bars(result.table)
    measure = "loss_nats" if "loss_nats" in table.columns else "mean_loss_nats"
    figure = new_figure(10, 1.6 + 0.26 * len(table))
    axes = figure.subplots()
    rows = np.arange(len(table))
    colour = [ORANGE if kind in ("mean", "occurrence") else BLUE for kind in _kinds(table)]
    axes.barh(rows, table[measure].astype(float), color=colour, height=0.78)
    if {"low", "high"} <= set(table.columns):
        error = [table[measure] - table["low"], table["high"] - table[measure]]
        axes.errorbar(table[measure], rows, xerr=error, fmt="none", color="black", capsize=3)
    axes.set_yticks(
        rows, [drawable(name) for name in _bar_names(result.by, table)], fontsize=8, family=MONOSPACE, parse_math=False
    )
    axes.set_ylim(len(table) - 0.4, -0.6)
    unit = "loss (nats)" if measure == "loss_nats" else "mean loss (nats per token)"
    shown = f", {len(table)} of {len(result.table)}" if len(table) < len(result.table) else ""
    label(axes, unit, "", f"{heading(run)}: hardest by {result.by}{shown}")
    axes.grid(visible=False, axis="y")
    return figure


def _kinds(table: pd.DataFrame) -> list[str]:
    for name in ("hardest_by", "kind"):
        if name in table.columns:
            return [str(kind) for kind in table[name]]
    return [""] * len(table)


def _first_bars(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that get a bar: the first ones of each ranking, as many of one as of the other."""
    kinds = pd.Series(_kinds(table), index=table.index)
    place = kinds.groupby(kinds).cumcount()
    return table[place < BARS // kinds.nunique()]


def _bar_names(by: str, table: pd.DataFrame) -> list[str]:
    """Return what stands beside each bar."""
    rows = table.to_dict("records")
    if by == "token":
        return [
            f"{row['before'][-BEFORE:]}\u27e6{row['characters'][:BEFORE]}\u27e7{row['after'][:AFTER]:{AFTER}}"
            for row in rows
        ]
    if by == "type":
        return [
            f"\u27e6{row['text'][:BEFORE]}\u27e7 \u00d7{row['count']}, {row['share_of_loss']:.1%} of the loss "
            f"(by {row['hardest_by']})"
            for row in rows
        ]
    if by == "document":
        return [f"{row['document']}: {row['begins'][:28]}" for row in rows]
    return [f"{row['class']} ({row['kind']}, {row['share_of_tokens']:.1%} of tokens)" for row in rows]


def plot_perplexity(run: Run, result: Perplexity) -> Figure:
    """Return the mean loss with its interval between the reference levels, and the groups when there are any."""
    groups = None if result.groups is None else result.groups.head(BARS)
    count = 0 if groups is None else len(groups)
    figure = new_figure(9, 2.6 + 0.24 * count)
    axes = figure.subplots()
    names = ["all tokens"]
    title = f"{heading(run)}: 95 % intervals over {interval_words(result.interval_unit)}"
    if groups is not None and result.groups is not None:
        names += [visible(f"{result.by} {group}", 40) for group in groups["group"]]
        title += f"; {count} of {len(result.groups)} groups, hardest first" if count < len(result.groups) else ""
    means = [result.nll_nats_per_token, *([] if groups is None else groups["mean_loss_nats"])]
    lows = [result.nll_interval[0], *([] if groups is None else groups["low"])]
    highs = [result.nll_interval[1], *([] if groups is None else groups["high"])]
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
    axes.legend(fontsize=8, loc="best")
    label(axes, "mean loss (nats per token); smaller is better", "", title)
    axes.grid(visible=False, axis="y")
    return figure
