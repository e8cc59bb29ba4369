"""Declares each option once, on the field of the dataclass that holds its value.

The options of the command line, the keys of the audit file and the arguments in Python are all made from these
declarations, so type, default, choices and help are written nowhere else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from lossprobe.options.kinds import Kind

DECLARED = "option"  # key of the declaration in the metadata of a dataclass field


@dataclass(frozen=True)
class Option:
    """The declaration of an option.

    Attributes:
        kind: the values that it takes.
        help: its help text, one line.
        metavar: placeholder of its value in the help, such as "FILE"; None for the default of the kind.
        aliases: other names on the command line.
        switch: name on the command line of a flag that turns the option off, such as "no-text"; None if the flag has
            the name of the field.
        in_audit_file: whether it is a key of the audit file too.
    """

    kind: Kind
    help: str
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    switch: str | None = None
    in_audit_file: bool = True


def option(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """Return a dataclass field with a default and the declaration of an option.

    Args:
        default: default of the option.
        kind: the values that it takes.
        help: its help text, one line.
        more: other attributes of `Option`.
    """
    return dataclasses.field(default=default, metadata={DECLARED: Option(kind, help, **more)})


def options_of(holder: type[Any]) -> dict[str, Option]:
    """Return the options that a dataclass declares, by the names of its fields.

    >>> from lossprobe.options.kinds import Flag
    >>> @dataclass(frozen=True)
    ... class Reading:
    ...     links: bool = option(False, Flag(), "Follow links.")
    >>> options_of(Reading)["links"].help
    'Follow links.'
    """
    return {field.name: field.metadata[DECLARED] for field in dataclasses.fields(holder) if DECLARED in field.metadata}


def kinds_of(holder: type[Any]) -> dict[str, Kind]:
    """Return the options of a dataclass that are keys of the audit file, with the kind of value of each."""
    return {name: declared.kind for name, declared in options_of(holder).items() if declared.in_audit_file}


def default_of(holder: type[Any], name: str) -> Any:
    """Return the default of the option `name` of a dataclass."""
    return next(field.default for field in dataclasses.fields(holder) if field.name == name)
