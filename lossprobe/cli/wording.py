"""Replaces names of Python arguments in messages of the library by the options of the command line that set them.

The library writes "raise `max_bytes`" for Python users; the command line prints "raise --max-bytes". The option of each
argument is read from the commands.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lossprobe.analysis.deferred import held_fields
from lossprobe.cli.options import HOLDERS
from lossprobe.options.declare import options_of

if TYPE_CHECKING:
    from lossprobe.report.views.view import View

Value = TypeVar("Value")
# An argument in backquotes. Text in single quotes comes from the user; it is matched first so that it is not changed.
# Nor is a part of a path, or what stands before a colon: there messages name files, as in "`context`: does not exist".
ARGUMENT = re.compile(r"(?<!\w)'[^']*'(?!\w)|(?<![\w/.-])`(\w+(?:=False)?)`(?![\w/:-]|\.\w)")
# Attributes and columns of results with messages of the library; others may hold texts of the user.
SENTENCES = frozenset({"lines", "notes", "reason", "tool", "verdict", "why"})
OF_A_VIEW = ("result", "lines", "shown", "more", "brief")


def with_options(text: str, root: click.Command | None = None) -> str:
    """Return a message of the library with its arguments in backquotes replaced by options.

    Args:
        text: the message.
        root: the command `lossprobe`; None for the root of the command that is running.
    """
    if "`" not in text:
        return text
    running = click.get_current_context(silent=True)
    near = option_names(running.command) if running else {}
    if all(name in near for name in ARGUMENT.findall(text) if name):
        names = near  # an argument has the same option in every command, so that the others need not be imported
    else:
        names = option_names(root or click.get_current_context().find_root().command)
    return ARGUMENT.sub(lambda found: names.get(found[1], found[0]), text)


def option_names(root: click.Command) -> dict[str, str]:
    """Return argument → option for a command and all its subcommands.

    A flag that only turns something off, such as `--no-text`, has the argument `keep_text=False`.
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
    """Return a view whose messages name options instead of arguments."""
    return dataclasses.replace(view, **{name: _worded(getattr(view, name), name) for name in OF_A_VIEW})


def result_with_options(result: Value) -> Value:
    """Return a result (a frozen dataclass) whose messages name options instead of arguments."""
    told: Value = _worded(result, "")
    return told


def _worded(value: Any, name: str) -> Any:
    """Return the value of the attribute `name` with options for arguments; the same object if nothing changes."""
    if isinstance(value, str):
        return with_options(value) if name in SENTENCES else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = held_fields(value)
        changed = _changed(held)
        return dataclasses.replace(value, **held | changed) if changed else value
    if isinstance(value, (list, tuple)):
        told = [_worded(item, name) for item in value]
        return type(value)(told) if any(new is not old for new, old in zip(told, value, strict=True)) else value
    if hasattr(value, "columns"):  # a DataFrame; recognised without importing pandas
        columns = {name: value[name].tolist() for name in value.columns if name in SENTENCES}
        changed = _changed(columns)
        return value.assign(**changed) if changed else value
    return value


def _changed(held: dict[str, Any]) -> dict[str, Any]:
    told = {name: _worded(value, name) for name, value in held.items()}
    return {name: value for name, value in told.items() if value is not held[name]}
