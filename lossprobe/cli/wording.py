"""The arguments that the library names in its sentences, as the options of the command line that set them.

The library says "raise `max_bytes`", as a Python user needs it; the command line prints "raise --max-bytes". Which name
belongs to which option is read from the commands themselves.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lossprobe.cli.options import HOLDERS
from lossprobe.options.declare import options_of

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

Value = TypeVar("Value")
# An argument in backquotes; what stands in single quotes was given by somebody else, and is never changed.
ARGUMENT = re.compile(r"(?<!\w)'[^']*'(?!\w)|`(\w+(?:=False)?)`")
# Attributes and columns of results that hold sentences of the library; the others may hold texts of the user.
SENTENCES = frozenset({"lines", "notes", "reason", "tool", "verdict", "why"})
OF_A_VIEW = ("result", "lines", "shown", "more")


def with_options(text: str, root: click.Command | None = None) -> str:
    """Return a sentence of the library that names options in the place of arguments.

    Args:
        text: the sentence.
        root: the command that holds all others; None for that of the command that runs.
    """
    if "`" not in text:
        return text
    names = option_names(root or click.get_current_context().find_root().command)
    return ARGUMENT.sub(lambda found: names.get(found[1], found[0]), text)


def option_names(root: click.Command) -> dict[str, str]:
    """Return the options of a command and of those below it by the arguments that they set.

    Where only `--no-text` exists, it belongs to `keep_text=False`.
    """
    names: dict[str, str] = {}
    for command in _commands(root):
        for option in command.params:
            if isinstance(option, click.Option) and option.name is not None:
                names.setdefault(option.name, option.opts[0])
    for holder in HOLDERS.values():
        switches = {name: declared.switch for name, declared in options_of(holder).items() if declared.switch}
        names |= {f"{name}=False": f"--{switch}" for name, switch in switches.items()}
    return names


def _commands(root: click.Command) -> Iterator[click.Command]:
    yield root
    for command in root.commands.values() if isinstance(root, click.Group) else ():
        yield from _commands(command)


def view_with_options(view: View) -> View:
    """Return a view whose sentences name options in the place of arguments."""
    return dataclasses.replace(view, **{name: _worded(getattr(view, name), name) for name in OF_A_VIEW})


def result_with_options(result: Value) -> Value:
    """Return a result, a frozen dataclass, whose sentences name options in the place of arguments."""
    told: Value = _worded(result, "")
    return told


def _worded(value: Any, name: str) -> Any:
    """Return what an attribute holds in the command line's words; the very same object where nothing changes."""
    if isinstance(value, str):
        return with_options(value) if name in SENTENCES else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = _changed(held)
        return dataclasses.replace(value, **changed) if changed else value
    if isinstance(value, (list, tuple)):
        told = [_worded(item, name) for item in value]
        return type(value)(told) if any(new is not old for new, old in zip(told, value, strict=True)) else value
    if hasattr(value, "columns"):  # a DataFrame; pandas is not loaded for this
        columns = {name: value[name].tolist() for name in value.columns if name in SENTENCES}
        changed = _changed(columns)
        return value.assign(**changed) if changed else value
    return value


def _changed(held: dict[str, Any]) -> dict[str, Any]:
    told = {name: _worded(value, name) for name, value in held.items()}
    return {name: value for name, value in told.items() if value is not held[name]}
