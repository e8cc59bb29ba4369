"""How far two models' distributions are apart: panels of the picture of `lossprobe compare --kl`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import PercentFormatter

from lossprobe.analysis.compare.changes import UNRANKED
from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.report.plots.ranges import MOST_ROWS, Side, counted, draw_ranges, ends_of, name_rows
from lossprobe.report.style import BLUE, GREEN, GREY, VERMILION, label, legend, model_names
from lossprobe.units import format_count

GROUP_WIDTH = 28


def draw_divergence(figure: SubFigure, divergence: Divergence, models: tuple[str, str]) -> None:
    """Draw which share of the tokens has at most each KL divergence, and each change of its probability."""
    left, right = figure.subplots(1, 2)
    _draw_kl(left, divergence, models)
    _draw_changes(right, divergence, models)


def divergence_slices(divergence: Divergence) -> pd.DataFrame:
    """Return the slices that get a row in `draw_divergence_slices`: those that were asked for, or by context."""
    return (divergence.by_position if divergence.slices is None else divergence.slices).head(MOST_ROWS)


def draw_divergence_slices(axes: Axes, divergence: Divergence, models: tuple[str, str]) -> None:
    """Draw the mean KL divergence of each slice with its interval, below that of all tokens."""
    table = divergence_slices(divergence)
    by = "context" if divergence.slices is None else divergence.by
    marked = "\u27e6{}\u27e7" if by == "type" else "context {}" if by == "context" else "{}"
    groups = [marked.format(group) if group else f"(no {by})" for group in table["group"]]
    counts = [
        counted(name, format_count(int(count)))
        for name, count in zip(model_names(groups, GROUP_WIDTH), table["tokens"], strict=True)
    ]
    whole = pd.DataFrame([[divergence.mean_kl_nats, *divergence.mean_kl_nats_interval]]).astype(float)
    whole.columns = pd.Index(["value", "low", "high"])
    nothing = pd.DataFrame(np.nan, range(len(table)), whole.columns)
    sides = [
        Side(pd.concat([whole, nothing], ignore_index=True), VERMILION, "D"),
        Side(pd.concat([whole * np.nan, ends_of(table, "mean_kl_nats")], ignore_index=True), BLUE, "o"),
    ]
    rows = np.arange(len(table) + 1)
    remarks = draw_ranges(axes, rows, sides, 0.0, least=0.0)
    name_rows(axes, rows, [f"all tokens  ({format_count(divergence.tokens)})", *counts])
    order = "" if by in UNRANKED else ", most of the divergence first"
    label(axes, f"mean KL({models[0]}‖{models[1]}) (nats per token)", "", f"by {by} (tokens){order}{remarks}")


def _draw_kl(axes: Axes, divergence: Divergence, models: tuple[str, str]) -> None:
    shares, values = _points(divergence.kl_percentiles)
    shown = np.isfinite(values) & (values > 0)
    axes.plot(values[shown], shares[shown], "o-", color=BLUE, markersize=4, linewidth=1.2, label="percentiles")
    mean, (low, high) = divergence.mean_kl_nats, divergence.mean_kl_nats_interval
    if shown.any():
        axes.set_xscale("log")
    if np.isfinite(mean) and mean > 0:
        axes.axvline(mean, color=VERMILION, linewidth=1.4, linestyle="-.", label=f"mean {mean:.4g}")
        if low is not None and high is not None and low > 0:
            axes.axvspan(low, high, color=VERMILION, alpha=0.15, linewidth=0, label="95 % interval of the mean")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    infinite = divergence.infinite_kl_tokens
    title = f"same first choice on {divergence.same_top_share:.2%}" + (f"; {infinite:,} infinite" if infinite else "")
    label(axes, f"KL({models[0]}‖{models[1]}) of a token (nats, log scale)", "share of the tokens", title)
    legend(axes)


def _draw_changes(axes: Axes, divergence: Divergence, models: tuple[str, str]) -> None:
    shares, values = _points(divergence.target_prob_change_percentiles)
    axes.plot(values, shares, "s-", color=GREEN, markersize=4, linewidth=1.2, label="percentiles")
    axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1, label="no change")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    label(axes, f"change of the token's own probability; above 0: {models[1]} gives it more", "share of the tokens",
          f"root mean square {divergence.rms_target_prob_change:.2%}")  # fmt: skip
    legend(axes)


def _points(percentiles: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of the tokens in ascending order, and the value that each share does not exceed."""
    points = sorted((float(share), value) for share, value in percentiles.items())
    return np.array([share for share, _ in points]), np.array([value for _, value in points], float)
