"""How every picture looks: palette, sizes, fonts, safe labels. Nothing here changes matplotlib's global state.

All pictures are 8 inches wide, so that their smallest text, of 8 points, can be read at a width of 640 pixels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from unicodedata import bidirectional

import lossprobe.report.pictures  # noqa: F401 - must be the first import of matplotlib; see there

# isort: split
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import ScaledTranslation
from rich.cells import cell_len

from lossprobe.analysis.rows.clusters import BLOCK_TOKENS
from lossprobe.report.fonts import LEFT_TO_RIGHT, has_glyph
from lossprobe.report.names import ELLIPSIS, in_words, kind_words, short_names, windows_in_words
from lossprobe.run.reader import Run
from lossprobe.units import format_count, visible

# Palette of Okabe & Ito (2008), distinguishable with every kind of colour blindness; lines and markers differ too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6E6E6E"
SCALE = "cividis"
MONOSPACE_ADVANCE = 0.602  # width of a glyph in em
PROPORTIONAL_ADVANCE = 0.58  # em, of common text
WIDTH = 8.0  # inches, of every picture
HEADING, TEXT, SMALL = 10.0, 9.0, 8.0  # points
AROUND, TOKEN, AFTER = 16, 18, 8  # characters before a token, of it, and after it
BELOW_LABEL = 36.0  # points from an axis to what stands below its numbers and its label
BESIDE_NAMES = 0.5  # inches, of a picture's width that neither a panel nor the names of its rows have
MOST_NAMED = 4  # models of which the heading of a picture says one by one what they are
PAD = "\x00"  # stands for the second half of a wide character where a line is filled; no drawable text has it
UNHIDDEN = "\u200b"  # put before legend names that begin with "_", which matplotlib would leave out


def new_figure(height: float, *heading: str) -> Figure:
    """Return an empty figure of the given height in inches, under its heading: one or more lines, none a formula."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    _set_heading(figure, *heading)
    return figure


def _set_heading(figure: Figure, *heading: str) -> None:
    lines = [part for line in heading for part in _wrapped(line, WIDTH - 0.3, HEADING)]
    figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=HEADING, parse_math=False)


def tell_kinds(figure: Figure, runs: Sequence[Run]) -> None:
    """Add to the heading of a picture which of its models are adapters or quantised, where it does not say so."""
    named = len(runs) <= MOST_NAMED
    known = [(in_words(visible(run.name, 40), run) if named else kind_words(run)) for run in runs if kind_words(run)]
    told = _unspaced(figure.get_suptitle())
    missing = [words for words in dict.fromkeys(known) if _unspaced(drawable(words)) not in told]
    if missing:
        _set_heading(figure, figure.get_suptitle(), ", ".join(missing))


def _unspaced(text: str) -> str:
    return "".join(text.split())


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Set both axis labels, units included, and the title of a panel, none a formula; draw a light grid.

    A label that is longer than its axis continues in another line. The rows of a panel get their names before.
    """
    across, up = _across(axes), axes.get_window_extent().height / axes.figure.dpi
    axes.set_xlabel("\n".join(_wrapped(x, across, TEXT)), fontsize=TEXT, parse_math=False)
    axes.set_ylabel("\n".join(_wrapped(y, 0.75 * up, TEXT)), fontsize=TEXT, parse_math=False)
    axes.set_title("\n".join(_wrapped(title, across, TEXT)), loc="left", fontsize=TEXT, parse_math=False)
    axes.tick_params(labelsize=SMALL, which="both")
    axes.grid(visible=True, axis="x" if _names_of(axes) else "both", alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _across(axes: Axes) -> float:
    """Return the width of a panel in inches, as far as it is known before names beside its rows have got their room."""
    across, whole = (box.width / axes.figure.dpi for box in (axes.get_window_extent(), axes.figure.bbox))
    place = axes.get_subplotspec()
    names = _names_of(axes)
    if not names or place is None or not (place.is_first_col() and place.is_last_col()):
        return across
    longest = max(cell_len(line) for name in names for line in name.split("\n"))
    return min(across, whole - longest * SMALL * MONOSPACE_ADVANCE / 72 - BESIDE_NAMES)


def _names_of(axes: Axes) -> list[str]:
    """Return the names beside the rows of a panel; none where its axis has numbers."""
    named = isinstance(axes.yaxis.get_major_locator(), FixedLocator)
    return [text.get_text() for text in axes.get_yticklabels()] if named else []


def _wrapped(text: str, inches: float, size: float) -> list[str]:
    """Return the lines of a text, drawable, none of them wider than so many inches."""
    most = max(12, int(inches * 72 / (size * PROPORTIONAL_ADVANCE)))
    lines = ["".join(c + PAD * (cell_len(c) - 1) for c in drawable(line)) for line in text.split("\n")]
    return [part.replace(PAD, "") for line in lines for part in textwrap.wrap(line, most) or [""]]


def legend_name(text: str) -> str:
    """Return a drawable `label` for matplotlib, which `legend` shows even if it begins with "_"."""
    shown = drawable(text)
    return UNHIDDEN + shown if shown.startswith("_") else shown


def legend(axes: Axes, of: Axes | None = None) -> None:
    """Add the legend of everything drawn with a label below the axes, where it covers no data; none if nothing has one.

    Args:
        axes: the panel; its label is set already.
        of: the panel that was drawn into, where the legend belongs below another one.
    """
    handles, names = (of or axes).get_legend_handles_labels()
    if not handles:
        return
    across = _across(axes)
    shown = ["\n".join(_wrapped(name.removeprefix(UNHIDDEN), across - 4 * SMALL / 72, SMALL)) for name in names]
    longest = max(cell_len(line) for name in shown for line in name.split("\n"))
    columns = max(1, int(across * 72 / SMALL / (PROPORTIONAL_ADVANCE * longest + 4)))  # 4 em for the line before a name
    below = BELOW_LABEL + TEXT * 1.2 * axes.get_xlabel().count("\n")
    place = axes.transAxes + ScaledTranslation(0, -below / 72, axes.figure.dpi_scale_trans)
    box = axes.legend(
        handles, names, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=place, ncols=min(columns, len(names)),
        fontsize=SMALL, frameon=False, borderpad=0, borderaxespad=0, handlelength=2, columnspacing=1.5,
    )  # fmt: skip
    for text, name in zip(box.get_texts(), shown, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def heading(run: Run) -> str:
    """Return the heading of a picture of one run: model, text and windows."""
    return f"{in_words(visible(run.name, 40), run)} on {text_heading(run)}"


def text_heading(run: Run) -> str:
    """Return the heading of a picture of several models: text and windows."""
    return f"{visible(run.text_name, 40)}, {windows_in_words(run)}"


def model_names(names: list[str], width: int) -> list[str]:
    """Return what models or groups are called where there is room for `width` characters: drawable, no two equal."""
    return short_names([drawable(name) for name in names], width)


def cut(text: str, width: int) -> str:
    """Return a text of at most `width` cells: drawable, its end left out where it is longer.

    >>> cut("abcdefgh", 5)
    'abcd…'
    """
    shown = drawable(text)
    return shown if cell_len(shown) <= width else "".join(leading(shown, width - 1)) + ELLIPSIS


def in_text(before: str, characters: str, after: str) -> str:
    """Return a token between marks with what stands around it, for letters of one width."""
    left = "".join(leading(before[::-1], AROUND)[::-1])
    middle, right = "".join(leading(characters, TOKEN)), "".join(leading(after, AFTER))
    return in_order(f"{left}\u27e6{middle}\u27e7{right}{' ' * (AFTER - cell_len(right))}")


def leading(text: str, width: int) -> list[str]:
    """Return the first characters that fit into cells, drawable, none of them by half of its code."""
    pieces = [drawable(character) for character in text]
    return [piece for piece, end in zip(pieces, accumulate(map(cell_len, pieces)), strict=True) if end <= width]


def interval_words(unit: str) -> str:
    """Return the name of the units that an interval resamples: "documents", or "blocks of N tokens"."""
    return "documents" if unit == "document" else f"blocks of {format_count(BLOCK_TOKENS)} tokens"


def interval_line(unit: str, *, known: bool) -> str:
    """Return the line of a heading that says what the intervals resample, or why none is `known`."""
    if not known:
        return (
            f"no 95 % interval: a single {unit}" if unit == "document" else "no 95 % interval: a single block of tokens"
        )
    return f"95 % intervals over {interval_words(unit)}"


def drawable(text: str) -> str:
    r"""Return `text` with every character escaped that is unprintable or that no font has.

    >>> drawable("aé\x1b")
    'aé\\x1b'
    """
    return "".join(c if has_glyph(c) else c.encode("unicode_escape").decode("ascii") for c in visible(text))


def in_order(text: str) -> str:
    """Return a drawable text such that what stands beside it in a line stays there, if it runs from right to left."""
    leftwards = any(bidirectional(character) in ("R", "AL", "AN") for character in text)
    return f"{LEFT_TO_RIGHT}{text}{LEFT_TO_RIGHT}" if leftwards else text


def plain_text(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Draw a text as plain text: without formulas, and with characters that the fonts lack escaped."""
    axes.text(x, y, drawable(text), parse_math=False, **style)
