"""One declaration an option, on the field of the dataclass that holds its value.

The command line takes its options from these declarations, the audit file its keys, and Python its arguments: the type,
the default, the choices and the help stand nowhere else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from lossprobe.options.kinds import Kind

DECLARED = "option"  # where the metadata of a field holds it


@dataclass(frozen=True)
class Option:
    """What an option takes and means.

    Attributes:
        kind: the values it takes.
        help: one line for people.
        metavar: what the help shows in the place of a value; None for what follows from the kind.
        aliases: further names on the command line.
        switch: name on the command line of a flag that turns off what is on, such as "no-text"; None for its own name.
        in_audit_file: it is a key of the audit file too.
    """

    kind: Kind
    help: str
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    switch: str | None = None
    in_audit_file: bool = True


def option(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """Return a field of a dataclass with its default and its declaration; `more` as the attributes of `Option`."""
    return dataclasses.field(default=default, metadata={DECLARED: Option(kind, help, **more)})


def options_of(holder: type[Any]) -> dict[str, Option]:
    """Return the declared options of a dataclass by the names of their fields.

    >>> from lossprobe.options.kinds import Flag
    >>> @dataclass(frozen=True)
    ... class Reading:
    ...     links: bool = option(False, Flag(), "Follow links.")
    >>> options_of(Reading)["links"].help
    'Follow links.'
    """
    return {field.name: field.metadata[DECLARED] for field in dataclasses.fields(holder) if DECLARED in field.metadata}


def kinds_of(holder: type[Any]) -> dict[str, Kind]:
    """Return the keys that a dataclass has in an audit file, with the values that each takes."""
    return {name: declared.kind for name, declared in options_of(holder).items() if declared.in_audit_file}


def default_of(holder: type[Any], name: str) -> Any:
    """Return the default of an option."""
    return next(field.default for field in dataclasses.fields(holder) if field.name == name)
