"""How every picture looks: palette, fonts, safe labels. Nothing here changes matplotlib's global state."""

from __future__ import annotations

from functools import cache
from typing import Any

import lossprobe.report.pictures  # noqa: F401 - matplotlib without configuration, before anything of it is imported

# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from lossprobe.analysis.rows.clusters import BLOCK_TOKENS
from lossprobe.report.names import short_names
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

# Okabe & Ito: distinguishable with every kind of colour blindness; line style and markers differ too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
SCALE = "cividis"
MONOSPACE, PROPORTIONAL = "DejaVu Sans Mono", "DejaVu Sans"
MONOSPACE_ADVANCE = 0.602  # em, the same for every glyph
UNHIDDEN = "\u200b"  # before a name in a legend that begins with "_": matplotlib leaves such out


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def label(axes: Axes, x: str, y: str, title: str | None = None) -> None:
    """Set both axis labels, units included, and the title (of one or more lines), none a formula; draw a light grid."""
    axes.set_xlabel(drawable(x), parse_math=False)
    axes.set_ylabel(drawable(y), parse_math=False)
    if title is not None:
        shown = "\n".join(drawable(line) for line in title.split("\n"))
        axes.set_title(shown, loc="left", fontsize=10, parse_math=False)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def legend_name(text: str) -> str:
    """Return a name for the `label` of what is drawn: drawable, and shown by `legend` even if it begins with "_"."""
    shown = drawable(text)
    return UNHIDDEN + shown if shown.startswith("_") else shown


def legend(axes: Axes, **options: Any) -> None:
    """Add the legend of everything drawn with a label, each as it is: none a formula; none where nothing has one."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    box = axes.legend(handles, names, **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(drawable(name.removeprefix(UNHIDDEN)))


def heading(run: Run) -> str:
    """Return what a picture shows: model, text, context."""
    return f"{visible(run.name, 40)} on {text_heading(run)}"


def text_heading(run: Run) -> str:
    """Return what a picture of several models shows: text, context."""
    return f"{visible(run.text_name, 40)}, context {run.context}"


def model_names(names: list[str], width: int) -> list[str]:
    """Return what models are called where there is room for `width` characters: drawable, no two equal."""
    return short_names([drawable(name) for name in names], width)


def interval_words(unit: str) -> str:
    """Return what an interval resamples, for a title."""
    return "documents" if unit == "document" else f"blocks of {format_count(BLOCK_TOKENS)} tokens"


def drawable(text: str) -> str:
    r"""Return `text` with every character that is unprintable, or that the fonts lack, as its code point.

    >>> drawable("aé漢\x1b")
    'aé\\u6f22\\x1b'
    """
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode("ascii") for c in visible(text))


@cache
def _glyphs() -> frozenset[int]:
    """Return the code points that both fonts of our pictures can draw."""
    fonts = [FT2Font(findfont(FontProperties(family=family))) for family in (MONOSPACE, PROPORTIONAL)]
    return frozenset.intersection(*(frozenset(font.get_charmap()) for font in fonts))


def plain_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw a text as it is: no formulas, no missing glyphs."""
    axes.text(x, y, drawable(text), parse_math=False, **style)
