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
    plain_text,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count

# Column, legend, colour and line of each objective drawn. Objectives whose curve would lie on another are left out.
CURVES: tuple[tuple[str, str, str, Any], ...] = (
    ("nll_nats", "hard loss", "black", "-"),
    ("smoothed_torch_nats", "smoothed (torch), eps {smoothing:.4g}", BLUE, "--"),
    ("focal_nats", "focal, gamma {focal:.4g}", VERMILION, "-."),
    ("margin_ranking_nats", "margin ranking, delta {margin:.4g} nats", ORANGE, (0, (4, 1, 1, 1, 1, 1))),
    ("z_loss", "z-loss", GREY, ":"),
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
    figure = new_figure(13 if fp16 else 8, 5)
    left, *right = figure.subplots(1, 2, width_ratios=[3, 2]) if fp16 else [figure.subplots()]
    _draw_weights(left, result)
    label(
        left, "loss of the token (nats)", "share of the total per bin", f"{heading(run)}: what each objective weights"
    )
    for axes in right:
        _draw_half_precision(axes, result)
        batch = format_count(result.parameters.batch_tokens)
        label(axes, "loss scale S", "lost share (log scale)", f"float16, mean loss over {batch} tokens")
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
    legend(axes, fontsize=8)


def _draw_half_precision(axes: Axes, result: Objectives) -> None:
    """Draw the lost shares by loss scale, with the limit and the recommended scale."""
    frame = result.half_precision
    assert frame is not None
    for name, words, colour, line in LOST:
        axes.plot(frame["scale"], frame[name].where(frame[name] > 0), color=colour, linestyle=line, label=words)
    axes.axhline(L1_LIMIT, color="black", linewidth=0.9, linestyle=(0, (1, 1)))
    most = float(frame["scale"].max())
    plain_text(axes, most * 0.7, L1_LIMIT * 1.2, f"limit of L1: {L1_LIMIT:g}", fontsize=8, ha="right")
    scale = result.recommended_loss_scale
    if scale is not None:
        words = f"least scale that will do: {format_count(scale)}"
        axes.axvline(scale, color=GREEN, linewidth=1.4, linestyle="-.", label=words)
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.7, most * 1.4)
    axes.set_yscale("log")
    axes.set_ylim(LEAST, 2)
    legend(axes, fontsize=8, loc="best")
