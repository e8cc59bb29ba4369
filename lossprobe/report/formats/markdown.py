"""Writes views as GitHub-flavoured Markdown, for pull requests and step summaries."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lossprobe.plain_table import Table, is_numeric
from lossprobe.report.formats.cells import format_cell
from lossprobe.units import format_count, visible

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

ROWS = 40
# Characters that Markdown would read as markup, a link, a mention, a formula, a list or the end of a cell.
MARKUP = re.compile(r"[\\`*_\[#|~$@]|^[-+>]|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)")
# GitHub makes links of plain text too: https://…, www.…, me@host, @name, #1, GH-1, a commit's hash. It looks for some
# of these in the finished page, where escapes are gone, so only an invisible character inside can prevent it.
LINK = re.compile(
    r"(?i)(:(?=//)|\bwww(?=\.)|@(?=\w)|#(?=\d)|\bGH(?=-\d)"
    r"|(?<![\w.])(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{6}(?=[0-9a-f]{1,34}\b))"
)
JOINER = "&NoBreak;"  # U+2060, which has no width, so the text looks unchanged


def view_to_markdown(view: View) -> str:
    """Return a view as Markdown: its table, the lines below it, and its other tables."""
    pages = [(view.people_table, view.title, view.people_lines), *((frame, title, []) for title, frame in view.more)]
    return "\n".join(to_markdown(*page) for page in pages)


def to_markdown(table: Table, title: str, lines: Iterable[str]) -> str:
    """Return a heading, a table of at most 40 rows, and the lines below it; all text is escaped."""
    names = [str(name) for name in table.columns]
    texts = [not is_numeric(table[name]) for name in table.columns]
    first = table.head(ROWS)
    cells = [[format_cell(name, value) for value in first[name].tolist()] for name in names]
    grid = [names, *map(list, zip(*cells, strict=True))]
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
    r"""Return text escaped for Markdown, so that it is shown as it is and becomes no link or mention.

    >>> escaped("a|b <x> *1*"), escaped("https://x")
    ('a\\|b &lt;x&gt; \\*1\\*', 'https:&NoBreak;//x')
    """
    inert = LINK.sub(rf"\1{JOINER}", html.escape(text, quote=False))
    return MARKUP.sub(r"\\\g<0>", inert).replace("\n", " ")
