"""Checks the options that a Python caller gives, as the command line checks its own."""

from __future__ import annotations

import numbers
from typing import Any

from lossprobe.errors import UsageError, WrongTypeError
from lossprobe.options.declare import default_of, options_of
from lossprobe.options.kinds import BadTypeError, BadValueError, Kind, Text, Words


def check_options(holder: type[Any], **given: object) -> None:
    """Refuse options that the command line would refuse too.

    Args:
        holder: the dataclass that declares them.
        given: their values by name; None is allowed where it is the default.

    Raises:
        WrongTypeError: a value is of another type.
        UsageError: a value is not allowed.
    """
    declared = options_of(holder)
    for name, value in given.items():
        kind = declared[name].kind
        unnamed = isinstance(value, str) and not value and isinstance(kind, Text)  # a field may be called ""
        if not unnamed and (value is not None or default_of(holder, name) is not None):
            read_option(name, kind, value)


def read_option(name: str, kind: Kind, value: object) -> object:
    """Return the value of an option that was given in Python; numbers of numpy and single words for a list are fine.

    Raises:
        WrongTypeError: it is of another type.
        UsageError: it is not allowed.
    """
    try:
        return kind.read(_plain(kind, value))
    except BadTypeError as error:
        raise WrongTypeError("argument.type", f"`{name}`: {error}", hint=error.hint) from None
    except BadValueError as error:
        raise UsageError("usage", f"`{name}`: {error}", hint=error.hint) from None


def _plain(kind: Kind, value: object) -> object:
    """Return a value as the audit file would give it."""
    if isinstance(kind, Words) and isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value
