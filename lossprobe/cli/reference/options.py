"""Makes the tables of every command's options from click; options that many commands share are listed once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lossprobe.cli.audit_file import audit_file_options
from lossprobe.cli.main import cli
from lossprobe.cli.options import scoring_options, view_options
from lossprobe.cli.reference.markdown import code, table, text

TITLES = ("option", "values", "default", "what it does")
# The options that commands share: their heading, and what adds them to a command.
SHARED = {
    "Options of the pass": scoring_options,
    "Options of a result": view_options,
    "Options in the place of an audit file's values": audit_file_options,
}


def command_options() -> str:
    """Return the shared options, then every command with its own."""
    shared = {heading: _rows(click.command()(add(lambda: None))) for heading, add in SHARED.items()}
    made = [f"## {heading}\n\n{table(TITLES, rows)}" for heading, rows in shared.items()]
    for name, command in _commands(cli, ()):
        usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name)))
        rows = _rows(command)
        taken = [heading for heading, those in shared.items() if set(those) <= set(rows)]
        own = [row for row in rows if not any(row in shared[heading] for heading in taken)]
        section = [
            f"## `lossprobe {name}`\n",
            f"{text(command.get_short_help_str(200))}\n",
            f"`lossprobe {name} {usage}`\n",
        ]
        if taken:
            links = ", ".join(f"[{heading[0].lower()}{heading[1:]}](#{_slug(heading)})" for heading in taken)
            section.append(f"{'Its own options, and ' if own else 'It takes '}{links}.\n")
        if own:
            section.append(table(TITLES, own))
        made.append("\n".join(section))
    return "\n".join(made)


def _slug(heading: str) -> str:
    return heading.lower().replace("'", "").replace(" ", "-")


def _commands(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, also each group that does something without a subcommand."""
    for name, command in sorted(group.commands.items()):
        full = (*above, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join(full), command
        if isinstance(command, click.Group):
            yield from _commands(command, full)


def _rows(command: click.Command) -> list[tuple[str, str, str, str]]:
    return sorted(_row(each) for each in command.params if isinstance(each, click.Option))


def _row(option: click.Option) -> tuple[str, str, str, str]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    values = "" if option.is_flag else _values(option)
    default = "" if option.is_flag or option.default is None else _shown(option.default)
    return names, values, default, text(option.help or "")


def _values(option: click.Option) -> str:
    """Return the values that an option takes as text: its choices, the range of its number, or its metavar."""
    kind = option.type
    words = list(kind.choices) if isinstance(kind, click.Choice) else (option.metavar or kind.name).split("|")
    if len(words) > 1:
        return ", ".join(map(code, words))
    bounds = _bounds(kind) if isinstance(kind, click.IntRange | click.FloatRange) else ""
    return f"{code(option.metavar or ('' if bounds else kind.name.upper()))} {bounds}".strip()


def _bounds(kind: click.IntRange | click.FloatRange) -> str:
    name = "whole number" if isinstance(kind, click.IntRange) else "number"
    low = "" if kind.min is None else f" from {kind.min:g}"
    high = "" if kind.max is None or kind.max > 1e6 else f" to {'below ' if kind.max_open else ''}{kind.max:g}"
    return f"{name}{low}{high}"


def _shown(default: Any) -> str:
    plain = isinstance(default, (str, int, float, Path)) and not isinstance(default, bool)
    return code(str(default)) if plain else ""
