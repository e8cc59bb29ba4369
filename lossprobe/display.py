"""How a notebook shows results: a title, tables and lines as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable

from lossprobe.plain_table import PlainTable, Table
from lossprobe.units import visible

ROWS = 40


def to_html(title: str, tables: Iterable[tuple[str, Table]], lines: Iterable[str]) -> str:
    """Return HTML in which all text from files is inert.

    Args:
        title: the first line; "" for none.
        tables: each after its heading, which may be ""; of long ones the first 40 rows.
        lines: what stands below the first table, one paragraph each.

    >>> to_html("a<b>", [], ["x & y"])
    '<div class="tex2jax_ignore mathjax_ignore"><p><b>a&lt;b&gt;</b></p><p>x &amp; y</p></div>'
    """
    below = "".join(f"<p>{_inert(line)}</p>" for line in lines if line)
    shown = [(f"<p><b>{_inert(name)}</b></p>" if name else "") + _table(table) for name, table in tables]
    first, rest = "".join(shown[:1]), "".join(shown[1:])
    heading = f"<p><b>{_inert(title)}</b></p>" if title else ""
    return f'<div class="tex2jax_ignore mathjax_ignore">{heading}{first}{below}{rest}</div>'


def _table(table: Table) -> str:
    first = table.head(ROWS)
    frame = first.frame() if isinstance(first, PlainTable) else first
    shown = frame.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
    text: str = shown.to_html(index=False, na_rep="n/a", border=0, float_format=lambda value: f"{value:.6f}")
    left = len(table) - ROWS
    return text + (f"<p>{left:,} more rows</p>" if left > 0 else "")


def _inert(text: str) -> str:
    return html.escape(visible(text))
