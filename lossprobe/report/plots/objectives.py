"""Draws the picture of `lossprobe objectives`."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lossprobe.analysis.objectives.half_precision import L1_LIMIT
from lossprobe.analysis.objectives.objectives import BIN_NATS, LAST_BIN, Objectives
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    heading,
    label,
    legend,
    new_figure,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count

# Column, legend, colour and line of each objective drawn. Objectives whose curve would lie on another are left out.
CURVES: tuple[tuple[str, str, str, Any], ...] = (
    ("nll_nats", "hard loss", "black", "-"),
    ("smoothed_torch_nats", "smoothed (torch), eps {smoothing:.4g}", BLUE, "--"),
    ("focal_nats", "focal, gamma {focal:.4g}", VERMILION, "-."),
    ("margin_ranking_nats", "margin ranking, delta {margin:.4g} nats", ORANGE, (0, (4, 1, 1, 1, 1, 1))),
    ("z_loss", "z-loss, alpha {z_weight:.4g}", GREY, ":"),
    ("gradient_l2", "gradient (L2) of the hard loss", GREEN, "-"),
    ("gradient_l2_smoothed_torch", "gradient (L2) of the smoothed loss", GREEN, ":"),
)
LOST = (
    ("entries_lost_share", "gradient entries", GREY, ":"),
    ("l1_lost_share", "sum of |gradient| (L1)", BLUE, "-"),
    ("l2_lost", "L2, relative error", VERMILION, "--"),
)
LEAST = 1e-8  # lower end of the right axis


def plot_objectives(run: Run, result: Objectives) -> Figure:
    """Return a figure of each objective's share by loss, and of what float16 gradients lose by loss scale if known."""
    fp16 = result.half_precision is not None
    heights = [4.6, 3.8] if fp16 else [4.6]
    figure = new_figure(sum(heights) + 0.3, heading(run))
    upper, *lower = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_weights(upper, result)
    for axes in lower:
        _draw_half_precision(axes, result)
    return figure


def _draw_weights(axes: Axes, result: Objectives) -> None:
    """Draw the share of tokens in each bin of loss as bars, and the share of each objective's total as a curve."""
    for place, (name, words, colour, line) in enumerate(CURVES):
        rows = result.weights[result.weights["objective"] == name]
        low = rows["loss_low_nats"].to_numpy(float)
        if place == 0:
            axes.bar(
                low, rows["share_of_tokens"], width=BIN_NATS, align="edge", color="0.85", label="tokens", zorder=1.5
            )
        axes.plot(
            low + BIN_NATS / 2,
            rows["share_of_objective"],
            color=colour,
            linestyle=line,
            linewidth=1.5,
            marker="." if len(rows) == 1 else "",
            label=words.format(**vars(result.parameters)),
        )
    last = float(result.weights["loss_low_nats"].max())
    axes.set_xlim(0, last + BIN_NATS)
    if last == LAST_BIN * BIN_NATS:  # the last bin holds all larger losses too
        ticks = [float(tick) for tick in range(0, int(last), 5)]
        axes.set_xticks([*ticks, last + BIN_NATS / 2], [*(f"{tick:g}" for tick in ticks), f"\u2265 {last:g}"])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, "loss of the token (nats)", "share of the total per bin",
          "\n".join(["what each objective weights", *_micro_batch_words(result)]))  # fmt: skip
    legend(axes)


def _micro_batch_words(result: Objectives) -> list[str]:
    """Return the mean of micro-batch means of the hard loss at each size, beside its mean."""
    table = result.micro_batches[result.micro_batches["objective"] == "nll_nats"]
    if not len(table):
        return []
    sizes = ", ".join(
        f"{loss:.4f} ({size})" for loss, size in zip(table["mean_of_means"], table["windows"], strict=True)
    )
    return [f"hard loss: mean {table['mean'].iloc[0]:.4f}; mean of micro-batch means (windows): {sizes}"]


def _draw_half_precision(axes: Axes, result: Objectives) -> None:
    """Draw the lost shares by loss scale, with the limit and the recommended scale."""
    frame = result.half_precision
    assert frame is not None
    for name, words, colour, line in LOST:
        axes.plot(frame["scale"], frame[name].where(frame[name] > 0), color=colour, linestyle=line, label=words)
    axes.axhline(L1_LIMIT, color="black", linewidth=0.9, linestyle=(0, (1, 1)), label=f"limit of L1: {L1_LIMIT:g}")
    most = float(frame["scale"].max())
    scale = result.recommended_loss_scale
    if scale is not None:
        words = f"least scale that will do: {format_count(scale)}"
        axes.axvline(scale, color=GREEN, linewidth=1.4, linestyle="-.", label=words)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.7, most * 1.4)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 2)
    batch = format_count(result.parameters.batch_tokens)
    label(axes, "loss scale S (log scale)", "lost share (log scale)", f"float16, mean loss over {batch} tokens")
    legend(axes)
