"""Draws running text, each token on a background of its own colour."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len

from lossprobe.report.fonts import MONOSPACE
from lossprobe.report.style import GREY, MONOSPACE_ADVANCE, leading

STRIP_COLUMNS = 96
STRIP_LINES = 12
SAID = ("content", "thinking", "tool_call")  # parts in which a line end begins a line
DARK = 1.4  # sum of red, green and blue up to which letters on it are white

Colour = str | tuple[float, float, float, float]


def placed_texts(strip: pd.DataFrame) -> list[tuple[int, int, str]]:
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


def draw_text(
    axes: Axes,
    placed: tuple[int, int, str],
    colour: Colour,
    size: float,
    *,
    pale: bool = False,
    underlined: bool = False,
) -> None:
    """Draw one token at its column and line, unless that line is not drawn.

    Args:
        axes: where.
        placed: column, line and drawable text.
        colour: of the background.
        size: of the letters, in points.
        pale: write it in grey.
        underlined: put a black line under it, for eyes that do not tell its colour from others.
    """
    x, y, shown = placed
    if not 0 <= y < STRIP_LINES:
        return
    axes.add_patch(Rectangle((x, y), cell_len(shown), 0.92, color=colour, linewidth=0))
    if underlined:
        axes.add_patch(Rectangle((x, y + 0.8), cell_len(shown), 0.12, color="black", linewidth=0))
    ink = "white" if sum(to_rgb(colour)) <= DARK else GREY if pale else "black"
    text = axes.text(x, y + 0.68, shown, family=MONOSPACE, fontsize=size, color=ink, parse_math=False)
    text.set_in_layout(False)


def letter_size(figure: Figure, axes: Axes, columns: int) -> float:
    """Return the size in points of letters that fit into the columns of the strip, however wide the layout made it.

    A letter is drawn in whole pixels, so that it may be half a pixel wider than its size says: 4 % at 150 dots an inch.
    """
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    return axes.get_position().width * figure.get_figwidth() * 72 * 0.96 / columns / MONOSPACE_ADVANCE
