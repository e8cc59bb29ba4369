"""How far two models' distributions are apart: a panel of the picture of `lossprobe compare --kl`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import PercentFormatter

from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.report.style import BLUE, GREEN, GREY, VERMILION, label, legend


def draw_divergence(figure: SubFigure, divergence: Divergence, models: tuple[str, str]) -> None:
    """Draw which share of the tokens has at most each KL divergence, and each change of its probability."""
    left, right = figure.subplots(1, 2)
    _draw_kl(left, divergence, models)
    _draw_changes(right, divergence, models)


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
