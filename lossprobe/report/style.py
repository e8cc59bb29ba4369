"""The style of all pictures: palette, fonts and escaped labels. Nothing here changes matplotlib's global state."""

from __future__ import annotations

from functools import cache
from typing import Any

import lossprobe.report.pictures  # noqa: F401 - must be the first import of matplotlib; see there

# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from lossprobe.analysis.rows.clusters import BLOCK_TOKENS
from lossprobe.report.names import short_names
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

# Palette of Okabe & Ito (2008), distinguishable with every kind of colour blindness; lines and markers differ too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
SCALE = "cividis"
MONOSPACE, PROPORTIONAL = "DejaVu Sans Mono", "DejaVu Sans"
MONOSPACE_ADVANCE = 0.602  # width of a glyph in em
UNHIDDEN = "\u200b"  # put before legend names that begin with "_", which matplotlib would leave out


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def label(axes: Axes, x: str, y: str, title: str | None = None) -> None:
    """Set both axis labels and the title as plain text, without formulas, and draw a light grid.

    Args:
        axes: the axes.
        x: label of the x axis, with its unit.
        y: label of the y axis, with its unit.
        title: one or more lines, or None.
    """
    axes.set_xlabel(drawable(x), parse_math=False)
    axes.set_ylabel(drawable(y), parse_math=False)
    if title is not None:
        shown = "\n".join(drawable(line) for line in title.split("\n"))
        axes.set_title(shown, loc="left", fontsize=10, parse_math=False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_name(text: str) -> str:
    """Return a drawable `label` for matplotlib, which `legend` shows even if it begins with "_"."""
    shown = drawable(text)
    return UNHIDDEN + shown if shown.startswith("_") else shown


def legend(axes: Axes, **options: Any) -> None:
    """Add a legend of everything that was drawn with a label, as plain text; no legend where nothing has a label."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    box = axes.legend(handles, names, **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(drawable(name.removeprefix(UNHIDDEN)))


def heading(run: Run) -> str:
    """Return the heading of a picture of one run: model, text and context."""
    return f"{visible(run.name, 40)} on {text_heading(run)}"


def text_heading(run: Run) -> str:
    """Return the heading of a picture of several models: text and context."""
    return f"{visible(run.text_name, 40)}, context {run.context}"


def model_names(names: list[str], width: int) -> list[str]:
    """Return drawable names of models, each at most `width` characters long and no two equal."""
    return short_names([drawable(name) for name in names], width)


def interval_words(unit: str) -> str:
    """Return the name of the units that an interval resamples: "documents", or "blocks of N tokens"."""
    return "documents" if unit == "document" else f"blocks of {format_count(BLOCK_TOKENS)} tokens"


def drawable(text: str) -> str:
    r"""Return `text` with every character escaped that is unprintable or missing in the fonts.

    >>> drawable("aé漢\x1b")
    'aé\\u6f22\\x1b'
    """
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode("ascii") for c in visible(text))


@cache
def _glyphs() -> frozenset[int]:
    """Return the code points that both fonts of the pictures have."""
    fonts = [FT2Font(findfont(FontProperties(family=family))) for family in (MONOSPACE, PROPORTIONAL)]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))


def plain_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw a text as plain text: without formulas, and with characters that the fonts lack escaped."""
    axes.text(x, y, drawable(text), parse_math=False, **style)
