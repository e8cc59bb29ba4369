"""A result as GitHub-flavoured Markdown, for pull requests and step summaries. Formats numbers; computes none."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from lossprobe.report.formats.cells import format_cell
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

ROWS = 40
# What Markdown would read as markup, a link, a mention, a formula, a list or the end of a cell.
MARKUP = re.compile(r"[\\`*_\[#|~$@]|^[-+>]|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)")
# Text becomes a link by itself, whatever is escaped in it: https://…, www.…, me@host, @name, #1, GH-1, a commit's hash.
# GitHub looks for some of these in the finished page, so that only a character between can prevent it.
LINK = re.compile(
    r"(?i)(:(?=//)|\bwww(?=\.)|@(?=\w)|#(?=\d)|\bGH(?=-\d)"
    r"|(?<![\w.])(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{6}(?=[0-9a-f]{1,34}\b))"
)
JOINER = "&NoBreak;"  # U+2060, without width: the text looks as before


def view_to_markdown(view: View) -> str:
    """Return a view as Markdown: its table, the lines below it, and its further tables."""
    pages = [(view.people_table, view.title, view.people_lines), *((frame, title, []) for title, frame in view.more)]
    return "\n".join(to_markdown(*page) for page in pages)


def to_markdown(table: pd.DataFrame, title: str, lines: Iterable[str]) -> str:
    """Return a heading, a table of at most 40 rows, and lines below it; no text in it can become markup."""
    names = [str(name) for name in table.columns]
    texts = [not pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    rows = [[format_cell(name, row[name]) for name in names] for row in table.head(ROWS).to_dict("records")]
    grid = [names, *rows]
    shown = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in grid]
    ruler = f"|{'|'.join('---' if text else '---:' for text in texts)}|"
    left = len(table) - ROWS
    more = [f"{format_count(left)} more rows are in the CSV."] if left > 0 else []
    paragraphs = [escaped(visible(line)) for line in lines if line]
    return (
        "\n\n".join([f"### {escaped(visible(title))}", "\n".join([shown[0], ruler, *shown[1:]]), *more, *paragraphs])
        + "\n"
    )


def escaped(text: str) -> str:
    r"""Return text that Markdown shows as it is, and that nothing turns into a link or a mention.

    >>> escaped("a|b <x> *1*"), escaped("https://x")
    ('a\\|b &lt;x&gt; \\*1\\*', 'https:&NoBreak;//x')
    """
    inert = LINK.sub(rf"\1{JOINER}", html.escape(text, quote=False))
    return MARKUP.sub(r"\\\g<0>", inert).replace("\n", " ")
