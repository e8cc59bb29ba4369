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
from rich.cells import cell_len

from lossprobe.analysis.tokens import TokenLosses
from lossprobe.report.fonts import MONOSPACE
from lossprobe.report.names import short_names
from lossprobe.report.style import (
    BLUE,
    GREEN,
    GREY,
    MONOSPACE_ADVANCE,
    ORANGE,
    SCALE,
    SMALL,
    TEXT,
    VERMILION,
    heading,
    label,
    leading,
    legend,
    new_figure,
    plain_text,
)
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

STRIP_COLUMNS = 96
STRIP_LINES = 12
ROLE_COLUMNS = 13  # left of the text of a conversation
ROLE_COLOURS = {"system": GREY, "user": BLUE, "prompt": BLUE, "assistant": ORANGE, "completion": ORANGE, "tool": GREEN}
SAID = ("content", "thinking", "tool_call")  # parts in which a line end begins a line
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
    placed = _placed(strip)
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
    size = _letter_size(figure, axes, STRIP_COLUMNS + turns * ROLE_COLUMNS)
    for (x, y, shown), loss in zip(placed, losses, strict=True):
        if not 0 <= y < STRIP_LINES:
            continue
        colour = (PALE if turns else UNSCORED) if np.isnan(loss) else colours(scale(loss))
        axes.add_patch(Rectangle((x, y), cell_len(shown), 0.92, color=colour, linewidth=0))
        ink = "white" if sum(colour[:3]) <= 1.4 else GREY if turns and np.isnan(loss) else "black"
        text = axes.text(x, y + 0.68, shown, family=MONOSPACE, fontsize=size, color=ink, parse_math=False)
        text.set_in_layout(False)
    if turns:
        _draw_roles(axes, strip, [y for _, y, _ in placed], size)


def _placed(strip: pd.DataFrame) -> list[tuple[int, int, str]]:
    """Return column, line and drawable text of the tokens: wrapped at words, line ends and turns.

    What belongs to no turn goes on in the line of the turn before it.
    """
    turns = strip["turn"].ffill().bfill() if "turn" in strip else pd.Series(0, strip.index)
    said = strip["part"].isin(SAID) if "part" in strip else pd.Series(data=True, index=strip.index)
    placed: list[tuple[int, int, str]] = []
    x = y = 0
    before = turns.iloc[0]
    for text, turn, breaks in zip(map(str, strip["text"]), turns, said, strict=True):
        blank = text.strip() == ""
        shown = "".join(leading(text, STRIP_COLUMNS)).replace(" ", "\u00b7" if blank else " ")
        at_word = x > STRIP_COLUMNS - 14 and text.startswith(" ")
        if at_word or x + cell_len(shown) > STRIP_COLUMNS or (turn != before and x):
            x, y = 0, y + 1
        before = turn
        placed.append((x, y, shown))
        x += cell_len(shown)
        if breaks and text.endswith("\\n"):
            x, y = 0, y + 1
    return placed


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


def _letter_size(figure: Figure, axes: Axes, columns: int) -> float:
    """Return the size in points of letters that fit into the columns of the strip, however wide the layout made it.

    A letter is drawn in whole pixels, so that it may be half a pixel wider than its size says: 4 % at 150 dots an inch.
    """
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    return axes.get_position().width * figure.get_figwidth() * 72 * 0.96 / columns / MONOSPACE_ADVANCE
