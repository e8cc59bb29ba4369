"""How every picture looks: palette, fonts, safe labels. Nothing here touches matplotlib's global state."""

from __future__ import annotations

from functools import cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from lossprobe.analysis.clusters import BLOCK_TOKENS
from lossprobe.run.reader import Run
from lossprobe.units import format_count

# Okabe & Ito: distinguishable with every kind of colour blindness; line style and markers differ too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
SCALE = "cividis"
MONOSPACE = "DejaVu Sans Mono"
MONOSPACE_ADVANCE = 0.602  # em, the same for every glyph


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches; labels in it are text, never formulas."""
    with matplotlib.rc_context({"text.parse_math": False}):
        return Figure(figsize=(width, height), layout="constrained")


def label(axes: Axes, x: str, y: str, title: str | None = None) -> None:
    """Set both axis labels, units included, and the title; draw a light grid."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if title is not None:
        axes.set_title(title, loc="left", fontsize=10)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def heading(run: Run) -> str:
    """Return what a picture shows: model, text, context."""
    return f"{run.name} on {run.text_name}, context {run.context}"


def interval_words(unit: str) -> str:
    """Return what an interval resamples, for a title."""
    return "documents" if unit == "document" else f"blocks of {format_count(BLOCK_TOKENS)} tokens"


def drawable(text: str) -> str:
    r"""Return `text` with every character that the font lacks as its code point.

    >>> drawable("aé漢")
    'aé\\u6f22'
    """
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode("ascii") for c in text)


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(findfont(FontProperties(family=MONOSPACE))).get_charmap())


def plain_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw a text that came from a file: no formulas, no missing glyphs."""
    axes.text(x, y, drawable(text), parse_math=False, **style)
