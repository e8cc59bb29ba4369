"""Checks the types of arguments in Python, so that a wrong one is named before anything is done with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lossprobe.errors import WrongTypeError

IN_MEMORY = 'texts in memory: lossprobe.StringSource(["one document", "another"])'


def wrong_type(name: str, expected: str, value: object, hint: str | None = None) -> WrongTypeError:
    """Return the error for an argument that is of a wrong type.

    Args:
        name: the argument.
        expected: what it takes, such as "a path".
        value: what it got.
        hint: what to try, or None.

    >>> print(wrong_type("paths", "a path or several", [1, 2]))
    `paths` takes a path or several, not a list of int
    """
    return WrongTypeError("argument.type", f"`{name}` takes {expected}, not {kind_of(value)}", hint=hint)


def kind_of(value: object) -> str:
    """Return a few words for the type of a value.

    >>> kind_of(None), kind_of(b""), kind_of(["a", 1])
    ('None', 'bytes', 'a list of str and int')
    """
    if value is None:
        return "None"
    kind = type(value)
    if isinstance(value, (list, tuple)):
        kinds = dict.fromkeys(type(each).__name__ for each in value)
        return f"a {kind.__name__} of {' and '.join(kinds)}" if value else f"an empty {kind.__name__}"
    home = kind.__module__.partition(".")[0]
    return kind.__name__ if home == "builtins" else f"{home}'s {kind.__name__}"


def is_path(value: object) -> bool:
    """Return whether a value is a path: a string, a `Path`, or another object that stands for a path."""
    return isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)


def as_path(name: str, expected: str, value: object, hint: str | None = None) -> Path:
    """Return a path that was given as a string or `Path`.

    Raises:
        WrongTypeError: it is something else; the arguments are those of `wrong_type`.
    """
    if isinstance(value, (str, os.PathLike)) and is_path(value):
        return Path(value)
    raise wrong_type(name, expected, value, hint)


def as_paths(name: str, value: object) -> list[Path]:
    """Return one path or several as a list.

    Raises:
        WrongTypeError: they are something else.
    """
    given: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(map(is_path, given)):
        raise wrong_type(name, "a path or a list of paths", value, IN_MEMORY)
    return [as_path(name, "a path", path) for path in given]


def as_strings(name: str, value: object) -> list[str]:
    """Return strings as a list, also those of an iterator or of a column of a frame.

    Raises:
        WrongTypeError: one string, a frame or a mapping, whose keys would be taken, or anything but strings.
    """
    keyed = isinstance(value, (str, bytes, Mapping)) or hasattr(value, "columns")
    if keyed or not isinstance(value, Iterable):
        raise wrong_type(name, "a list of strings", value)
    strings = list(value)
    other = [each for each in strings if not isinstance(each, str)]
    if other:
        raise wrong_type(name, "a list of strings", other)
    return strings
