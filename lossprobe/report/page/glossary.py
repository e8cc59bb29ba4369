"""The explanations of a page: what each name in its tables means, in the words of `lossprobe explain`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lossprobe.terms.catalogue import find_terms
from lossprobe.terms.term import Term

KINDS = (
    "number",
    "column",
    "audit metric",
    "finding",
    "defect",
    "diagnosis",
)  # what names a column or a row of a table


@dataclass(frozen=True)
class Entry:
    """The explanation of a name.

    Attributes:
        id: its name in links, such as "term-3".
        name: as tables print it.
        terms: its meanings, one paragraph each.
    """

    id: str
    name: str
    terms: tuple[Term, ...]


def glossary_of(names: Iterable[str]) -> dict[str, Entry]:
    """Return name → explanation, for each name that has one, in the order of the names."""
    entries: dict[str, Entry] = {}
    for name in dict.fromkeys(names):
        known = [term for term in find_terms(name) if term.kind in KINDS]
        if known:
            first = [term for term in known if term.kind == known[0].kind]  # a column of that name says no more
            entries[name] = Entry(f"term-{len(entries)}", name, tuple(first[:1]))
    return entries
