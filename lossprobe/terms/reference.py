"""The reference in Markdown: one table a kind of term, made from the declarations.

`python -m lossprobe.terms.reference` prints all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from lossprobe.terms.catalogue import all_terms
from lossprobe.terms.term import KINDS, Term

Cell = Callable[[Term], str]


def _names(term: Term) -> str:
    return ", ".join(f"`{name}`" for name in term.names)


def _command(term: Term) -> str:
    return f"`{term.command}`" if term.command else ""


NAME: tuple[str, Cell] = ("name", _names)
WHAT: tuple[str, Cell] = ("what it is", lambda term: term.what)
FORMULA: tuple[str, Cell] = ("formula", lambda term: term.formula)
UNIT: tuple[str, Cell] = ("unit", lambda term: term.unit)
READ: tuple[str, Cell] = ("how to read it", lambda term: term.how_to_read)
SOURCE: tuple[str, Cell] = ("source", lambda term: term.source)
SHOWN: tuple[str, Cell] = ("shown by", _command)
TABLES: dict[str, tuple[tuple[str, Cell], ...]] = {
    "number": (NAME, WHAT, FORMULA, UNIT, READ, SOURCE, SHOWN),
    "column": (
        NAME,
        ("type", lambda term: term.type),
        WHAT,
        UNIT,
        ("in", lambda term: f"`{term.stored_in}`" if term.stored_in else _command(term)),
    ),
    "exit code": (("code", _names), WHAT, READ),
    "error id": (
        ("id", _names),
        ("exit code", lambda term: str(term.exit_code)),
        WHAT,
        ("what to do", lambda term: term.remedy),
    ),
    "protocol": (NAME, WHAT, READ, SHOWN),
    "audit metric": (NAME, WHAT, FORMULA, UNIT, READ, SOURCE),
}


def reference_table(kind: str) -> str:
    """Return the Markdown table of one kind of term, with a line for each term.

    Args:
        kind: one of `KINDS`.
    """
    columns = TABLES[kind]
    rows = [[title for title, _ in columns], ["---"] * len(columns)]
    rows += [[cell(term) for _, cell in columns] for term in all_terms() if term.kind == kind]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def reference_page() -> str:
    """Return all tables, each under its heading."""
    return "\n".join(f"## {title[0].upper()}{title[1:]}\n\n{reference_table(kind)}" for kind, title in KINDS.items())


def _escaped(cell: str) -> str:
    """Return a cell whose characters do not end it, or start HTML or emphasis, outside code."""
    parts = cell.split("`")
    shown = [part if index % 2 else part.replace("<", "&lt;").replace("*", "\\*") for index, part in enumerate(parts)]
    return "`".join(shown).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference_page())
