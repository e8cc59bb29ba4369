"""Puts adapters in the place of the base that a command names with `--adapter`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.errors import UsageError
from lossprobe.passes.order import looks_like_adapter
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.options import LoadOptions

ADAPTER_HELP = "Score this adapter on the checkpoint, which is its base; of several models it may be repeated."
OF_SEVERAL = ("calibration", "compare", "series")  # commands that show the base and its adapters side by side


def adapter_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--adapter` to a command that opens checkpoints; `on_named_base` carries it out."""
    kind = click.Path(path_type=Path)
    return click.option("--adapter", type=kind, multiple=True, metavar="FOLDER", help=ADAPTER_HELP)(command)


def on_named_base(arguments: dict[str, Any], options: LoadOptions) -> LoadOptions:
    """Take `--adapter` out of a command's arguments, and put what it names into their place; see `with_adapters`."""
    adapters: tuple[Path, ...] = arguments.pop("adapter")
    command = click.get_current_context().info_name or ""
    if adapters:
        options = with_adapters(command, arguments, adapters, options)
    return as_two(arguments, options) if command == "compare" else options


def with_adapters(
    command: str, arguments: dict[str, Any], adapters: Sequence[Path], options: LoadOptions
) -> LoadOptions:
    """Return the options with the named checkpoint as base, and put the adapters into its place among the arguments.

    Commands of several models keep the base as the first of them.

    Args:
        command: name of the command.
        arguments: its arguments by name, changed in place: `checkpoint`, or `sources` with the checkpoint first.
        adapters: the folders of the adapters.
        options: as given on the command line.

    Raises:
        UsageError: no checkpoint is named, it is an adapter too, `base` is given as well, or a command of one model
            gets several adapters.
    """
    several = command in OF_SEVERAL
    sources = (arguments["checkpoint"],) if "checkpoint" in arguments else tuple(arguments["sources"])
    first = visible(str(adapters[0]), 100)
    if not sources or looks_like_adapter(sources[0]):
        raise UsageError("adapter.options", f"--adapter {first}: name its base first", hint="BASE --adapter FOLDER")
    if options.base is not None:
        raise UsageError("adapter.options", f"--adapter {first} and --base: both name a base", hint="leave one out")
    if len(adapters) > 1 and not several:
        raise UsageError(
            "adapter.options", f"--adapter is given {len(adapters)} times, and {command} shows one model",
            hint=f"lossprobe {OF_SEVERAL[0]} BASE --adapter A --adapter B TEXT",
        )  # fmt: skip
    if "checkpoint" in arguments:
        arguments["checkpoint"] = adapters[0]
    else:
        arguments["sources"] = (*(sources[:1] if several else ()), *adapters, *sources[1:])
    return replace(options, base=sources[0])


def as_two(arguments: dict[str, Any], options: LoadOptions) -> LoadOptions:
    """Return the options for `compare BASE A B TEXT`, two adapters on one base: the base moves into the options."""
    sources = arguments["sources"]
    kinds = [looks_like_adapter(path) for path in sources[:3]]
    if len(sources) != 4 or kinds != [False, True, True] or options.base not in (None, sources[0]):
        return options
    arguments["sources"] = sources[1:]
    return replace(options, base=sources[0])
