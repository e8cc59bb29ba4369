"""A term: one name that lossprobe prints, and what a reader must know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

KINDS = {
    "number": "numbers",
    "column": "columns",
    "exit code": "exit codes",
    "error id": "error ids",
    "protocol": "protocols",
    "audit metric": "audit metrics",
    "diagnosis": "diagnoses",
    "finding": "findings",
    "defect": "defects of a text",
}


@dataclass(frozen=True)
class Term:
    """One name and its meaning. A field that does not apply is empty.

    Attributes:
        name: as lossprobe prints it.
        what: what it is, in a sentence or two.
        kind: one of `KINDS`.
        formula: how it is computed.
        unit: the unit of its values.
        type: the stored type of a column.
        stored_in: the files or tables that have the column.
        how_to_read: what a value means, and what it does not mean.
        remedy: what to do about an error, a diagnosis, a finding or a defect.
        exit_code: the exit code of an error.
        source: where the definition comes from.
        command: a command line that shows it.
        aliases: other names of the same thing.
    """

    name: str
    what: str
    kind: str
    formula: str = ""
    unit: str = ""
    type: str = ""
    stored_in: str = ""
    how_to_read: str = ""
    remedy: str = ""
    exit_code: int | None = None
    source: str = ""
    command: str = ""
    aliases: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        """The name, then its aliases."""
        return (self.name, *self.aliases)


number = partial(Term, kind="number")


def error_ids(exit_code: int, declared: dict[str, str]) -> tuple[Term, ...]:
    """Return the terms of errors with one exit code.

    Args:
        exit_code: of all of them.
        declared: error id to what is wrong; after a "→" what to do about it.
    """
    terms = []
    for id, text in declared.items():
        what, _, remedy = text.partition(" → ")
        terms.append(Term(id, what, "error id", remedy=remedy, exit_code=exit_code))
    return tuple(terms)
