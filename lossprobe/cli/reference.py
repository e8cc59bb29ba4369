"""The generated pages of the reference: every option of every command, and every name that lossprobe prints.

`python -m lossprobe.cli.reference FOLDER` writes them; `make docs` does so before it builds the site.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lossprobe.cli.main import cli
from lossprobe.terms.reference import reference_page

GENERATED = "<!-- Generated from the code by `make docs`; a test says when it is stale. -->\n\n"


def pages() -> dict[str, str]:
    """Return the generated pages by the names of their files."""
    names = (
        "# Every name\n\nWhat each number, column, exit code, error id, protocol and audit metric means. "
        "`lossprobe explain NAME` prints the same.\n\n"
    )
    return {"names.md": GENERATED + names + reference_page(), "options.md": GENERATED + options_page()}


def options_page() -> str:
    """Return every command with its options in Markdown."""
    text = "# Options\n\nEvery option of every command. An option is also a variable: `LOSSPROBE_COMMAND_OPTION`.\n"
    for name, command in _commands(cli, ()):
        usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name)))
        text += f"\n## `lossprobe {name}`\n\n{command.get_short_help_str(200)}\n\n"
        text += f"`lossprobe {name} {usage}`\n"
        rows = [_row(each) for each in command.params if isinstance(each, click.Option)]
        if rows:
            text += "\n| option | values | default | what it does |\n|---|---|---|---|\n" + "".join(sorted(rows))
    return text


def _commands(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name; a group that does something without a command of its own is one too."""
    for name, command in sorted(group.commands.items()):
        full = (*above, name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join(full), command
        if isinstance(command, click.Group):
            yield from _commands(command, full)


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    values = "" if option.is_flag else f"`{option.metavar or _values(option)}`"
    default = "" if option.is_flag or option.default is None else _shown(option.default)
    cells = (names, values, default, option.help or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def _values(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    return option.type.name.upper()


def _shown(default: Any) -> str:
    if isinstance(default, (str, int, float, Path)) and not isinstance(default, bool):
        return f"`{default}`"
    return ""


if __name__ == "__main__":
    for page, content in pages().items():
        (Path(sys.argv[1]) / page).write_text(content, "utf-8")
