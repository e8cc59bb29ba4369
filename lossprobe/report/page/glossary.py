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
        term: what it means; of several kinds the first one, since a column named like a number says no more.
    """

    id: str
    name: str
    term: Term


def glossary_of(names: Iterable[str]) -> dict[str, Entry]:
    """Return name → explanation, for each name that has one, in the order of the names."""
    entries: dict[str, Entry] = {}
    for name in dict.fromkeys(names):
        known = [term for term in find_terms(name) if term.kind in KINDS]
        if known:
            entries[name] = Entry(f"term-{len(entries)}", name, known[0])
    return entries
