"""Writes Markdown for the reference: tables, anchors and escaped text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text(words: str) -> str:
    r"""Return text escaped so that nothing in it starts HTML, emphasis or a link, except inside code.

    >>> text("p < 1 and a*b, not `a*b`")
    'p &lt; 1 and a\\*b, not `a*b`'
    """
    parts = words.split("`")
    shown = [part if index % 2 else _escaped(part) for index, part in enumerate(parts)]
    return "`".join(shown)


def _escaped(part: str) -> str:
    return part.replace("<", "&lt;").replace("*", "\\*")


def code(words: str) -> str:
    """Return words as Markdown code; "" for an empty text."""
    return f"`{words}`" if words else ""


def anchored(name: str, anchor: str) -> str:
    """Return a name as code, with the anchor that links lead to."""
    return f'<a id="{anchor}"></a>`{name}`'


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a column in which every cell is empty is left out.

    >>> print(table(["a", "b"], [["|x| of `|y|`", ""], ["z", ""]]), end="")
    | a |
    |---|
    | &#124;x&#124; of <code>&#124;y&#124;</code> |
    | z |
    """
    body = [[_in_cell(cell) for cell in row] for row in rows]
    kept = [index for index in range(len(titles)) if any(row[index] for row in body)]
    lines = [[titles[index] for index in kept], *([row[index] for index in kept] for row in body)]
    shown = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([shown[0], f"|{'---|' * len(kept)}\n", *shown[1:]])


def _in_cell(cell: str) -> str:
    """Return a cell in which no character ends it: programs disagree on a backslash before one, inside code."""
    parts = cell.split("`")
    for index, part in enumerate(parts):
        bars = part.replace("|", "&#124;")
        in_code = index % 2 == 1
        parts[index] = f"`{part}`" if in_code and bars == part else f"<code>{bars}</code>" if in_code else bars
    return "".join(parts)
