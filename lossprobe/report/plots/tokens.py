"""Draws the picture of `lossprobe tokens`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lossprobe.analysis.tokens import TokenLosses
from lossprobe.report.fonts import MONOSPACE
from lossprobe.report.names import short_names
from lossprobe.report.plots.strips import STRIP_COLUMNS, STRIP_LINES, draw_text, letter_size, placed_texts
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SCALE,
    SMALL,
    TEXT,
    VERMILION,
    heading,
    label,
    legend,
    new_figure,
    plain_text,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

ROLE_COLUMNS = 13  # left of the text of a conversation
ROLE_COLOURS = {"system": GREY, "user": BLUE, "prompt": BLUE, "assistant": ORANGE, "completion": ORANGE, "tool": GREEN}
UNSCORED, PALE = (0.85, 0.85, 0.85, 1.0), (0.95, 0.95, 0.95, 1.0)


def plot_tokens(run: Run, result: TokenLosses) -> Figure:
    """Return a figure of the histogram of losses with quantiles, above a strip of the text coloured by loss."""
    figure = new_figure(6.8, heading(run), _chosen(result))
    upper, lower = figure.subplots(2, 1, height_ratios=[1, 1])
    bins = result.histogram
    upper.bar(bins["low_nats"], bins["count"], width=bins["high_nats"] - bins["low_nats"], align="edge", color=BLUE)
    upper.set_yscale("log")
    top = float(bins["count"].max())
    upper.set_ylim(0.7, top * 8)
    last = float(bins["high_nats"].max()) * 1.02
    upper.set_xlim(0.0, last)
    for value in result.quantiles.values():
        upper.axvline(value, color=VERMILION, linewidth=1, linestyle="--")
    for value, name in _apart(result.quantiles, 0.025 * last):
        plain_text(upper, value, top * 7, f" {name}", color=VERMILION, fontsize=SMALL, va="top", rotation=90,
                   zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5})  # fmt: skip
    upper.axvline(result.mean_loss_nats, color="black", linewidth=1.4, label=f"mean {result.mean_loss_nats:.3f}")
    upper.axvline(result.quantiles["0.5"], color=VERMILION, linewidth=1, linestyle="--", label="quantiles")
    label(upper, "loss (nats per token)", "tokens (log scale)")
    legend(upper)
    draw_strip(figure, lower, result.strip)
    return figure


def _chosen(result: TokenLosses) -> str:
    """Return how many tokens are shown, and which, if not all of them."""
    chosen = "" if result.where == "TRUE" else f" with {result.where}"
    return f"{format_count(result.tokens_scored)} scored tokens{chosen}"


def _apart(quantiles: dict[str, float], least: float) -> list[tuple[float, str]]:
    """Return the names of the quantiles and their places; those that lie too near to each other share one name."""
    groups: list[list[tuple[float, str]]] = []
    for share, value in quantiles.items():
        entry = (value, f"{float(share):.0%}")
        if groups and value - groups[-1][0][0] < least:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return [(group[0][0], ", ".join(name for _, name in group)) for group in groups]


def draw_strip(figure: Figure, axes: Axes, strip: pd.DataFrame) -> None:
    """Draw consecutive tokens as running text on a background coloured by loss, grey for unscored tokens.

    Each turn of a conversation begins a line, with a bar in the colour of its role; there unscored tokens are pale.
    """
    losses = strip["loss_nats"].astype(float)
    scale = Normalize(0.0, max(1.0, float(np.nanquantile(losses, 0.98))))
    colours = colormaps[SCALE]
    turns = "role" in strip
    placed = placed_texts(strip)
    first = _first_line(placed, losses) if turns else 0
    placed = [(x, y - first, shown) for x, y, shown in placed]
    axes.set_xlim(-ROLE_COLUMNS if turns else 0, STRIP_COLUMNS)
    axes.set_ylim(max(STRIP_LINES // 2, min(placed[-1][1] + 1, STRIP_LINES)), -0.2)
    axes.set_axis_off()
    title = "the text around the hardest token, coloured by loss (\\n: line end; \u00b7: blank)"
    axes.set_title(f"{title}; pale: no loss" if turns else title, loc="left", fontsize=TEXT)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes, extend="max", fraction=0.025, pad=0.01)
    bar.set_label("loss (nats)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    size = letter_size(figure, axes, STRIP_COLUMNS + turns * ROLE_COLUMNS)
    for (x, y, shown), loss in zip(placed, losses, strict=True):
        colour = (PALE if turns else UNSCORED) if np.isnan(loss) else colours(scale(loss))
        draw_text(axes, (x, y, shown), colour, size, pale=turns and bool(np.isnan(loss)))
    if turns:
        _draw_roles(axes, strip, [y for _, y, _ in placed], size)


def _first_line(placed: list[tuple[int, int, str]], losses: pd.Series) -> int:
    """Return the first line to draw, so that the hardest token is among those drawn."""
    hardest = placed[int(np.nanargmax(losses))][1]
    return 0 if hardest < STRIP_LINES else hardest - STRIP_LINES // 2


def _draw_roles(axes: Axes, strip: pd.DataFrame, lines: list[int], size: float) -> None:
    """Draw a bar beside each turn in the colour of its role, with its name at the first line that is drawn."""
    drawn = pd.DataFrame({"line": lines, "turn": strip["turn"].to_numpy(), "role": strip["role"].to_numpy()}).dropna()
    drawn = drawn[(drawn["line"] >= 0) & (drawn["line"] < STRIP_LINES)]
    for (_, role), rows in drawn.groupby(["turn", "role"], sort=True)["line"]:
        first, last = int(rows.min()), int(rows.max())
        colour = ROLE_COLOURS.get(str(role), VERMILION)
        axes.add_patch(Rectangle((-1.2, first), 0.7, last - first + 0.92, color=colour, linewidth=0))
        name = short_names([visible(str(role))], ROLE_COLUMNS - 2)[0]
        plain_text(axes, -1.8, first + 0.68, name, ha="right", fontsize=size, family=MONOSPACE, color="black")
