"""The options that several commands share, made for click.

The options of a scoring pass are declared on `LoadOptions`, `TextOptions` and `ScoreOptions`; here they become click
options.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.adapters import adapter_option, on_named_base
from lossprobe.cli.result_files import DEFAULT_FILE, SUFFIXES, file_name
from lossprobe.cli.values import BatchSize, RunPath, RunPlace, click_type
from lossprobe.errors import UsageError
from lossprobe.options.declare import Option, default_of, options_of
from lossprobe.options.kinds import Counts, Flag, Number, Words
from lossprobe.passes.engine_options import EngineOptions
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.options import TextOptions
from lossprobe.units import visible

Command = TypeVar("Command", bound=Callable[..., Any])
DESMOOTH_HELP = "Remove label smoothing EPS before scoring (torch convention)."


@dataclass(frozen=True)
class Scoring:
    """The values of `scoring_options`: how checkpoints are opened, texts read and scored, and where the run goes."""

    load: LoadOptions
    text: TextOptions
    score: ScoreOptions
    work: EngineOptions
    desmooth: float | None
    quiet: bool
    output: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Outputs:
    """The values of `view_options`: where the result of a view is written."""

    csv: str | None
    plot: str | None
    json: bool
    markdown: bool
    table: bool
    wide: bool

    def __post_init__(self) -> None:
        """Refuse, before anything is measured, two results in one place, and a file that cannot be written.

        Raises:
            UsageError: standard output or one file would get two results, or a picture is in an unknown format.
            OutputError: a file cannot be written.
        """
        if [self.csv, self.plot].count("-") + self.json + self.markdown + (self.table or self.wide) > 1:
            raise UsageError(
                "output.two_results",
                "--csv -, --plot -, --json, --markdown, --table or --wide: only one of them can have standard output",
            )
        if self.plot not in (None, "", "-", DEFAULT_FILE):
            refuse_unknown_format(str(self.plot))
        context = click.get_current_context(silent=True)
        command = (context.info_name if context else None) or "result"
        named = (("--csv", self.csv), ("--plot", self.plot))
        files = [
            file for option, given in named if (file := file_name(given, command, SUFFIXES[option][0])) is not None
        ]
        if len(files) > len(set(files)):
            raise UsageError("output.two_results", f"{visible(files[0], 200)}: --csv and --plot name the same file")
        if files:
            from lossprobe.cli.inputs import refuse_place  # commands without files need not import what it imports

            for file in files:
                refuse_place(file)


class ViewCommand(click.Command):
    """A command whose `--csv` and `--plot` take a FILE only if the next word is `-` or ends as such a file does.

    Otherwise `lossprobe positions --plot RUN` would use RUN as the name of the picture.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; `--csv` or `--plot` without a FILE gets the default file."""
        joined = []
        position = 0
        while position < len(args):
            word = args[position]
            follows = args[position + 1] if position + 1 < len(args) else ""
            if word in SUFFIXES and (follows == "-" or follows.lower().endswith(SUFFIXES[word])):
                joined.append(f"{word}={follows}")
                position += 1
            else:
                if word in SUFFIXES:
                    refuse_other_suffix(word, follows)
                joined.append(f"{word}={DEFAULT_FILE}" if word in SUFFIXES else word)
            position += 1
        return super().parse_args(ctx, joined)


def refuse_other_suffix(option: str, follows: str) -> None:
    """Refuse a word after `--csv` or `--plot` that is neither its file nor an existing source.

    Raises:
        UsageError: the word is neither, as in `--csv out.txt`, which would be read as a source.
    """
    if follows and not follows.startswith("-") and not Path(follows).exists():
        shown = visible(follows, 100)
        raise UsageError(
            "output.suffix", f"{option} {shown}: does not end in {_either(option)}, and no such source exists",
            hint=f"{option}={shown} writes to a file of any name" if option == "--csv" else None,
        )  # fmt: skip


def refuse_unknown_format(name: str) -> None:
    """Refuse a name of a picture that does not say its format; a device or a pipe gets a PNG.

    Raises:
        UsageError: the name ends in no suffix of a picture.
    """
    if name.lower().endswith(SUFFIXES["--plot"]) or (Path(name).exists() and not Path(name).is_file()):
        return
    raise UsageError(
        "output.suffix", f"--plot={visible(name, 100)}: does not end in {_either('--plot')}",
        hint="the suffix says in which format the picture is drawn",
    )  # fmt: skip


def _either(option: str) -> str:
    """Return the suffixes of an option's file in words."""
    *others, last = SUFFIXES[option]
    return f"{', '.join(others)} or {last}" if others else last


HOLDERS = {
    "load": LoadOptions,
    "text": TextOptions,
    "score": ScoreOptions,
    "work": EngineOptions,
}  # attribute of Scoring → its declarations


def declared_option(name: str, holder: type[Any]) -> Callable[[Command], Command]:
    """Return the click option for a declared option; it sets the argument `argument_of` of the command."""
    declared = options_of(holder)[name]
    argument = argument_of(name, declared)
    names = [f"--{argument.replace('_', '-')}", *(f"--{alias}" for alias in declared.aliases), argument]
    default = default_of(holder, name)
    if isinstance(declared.kind, Flag):
        return click.option(*names, is_flag=True, help=declared.help)
    more: dict[str, Any] = {"type": click_type(declared.kind), "help": declared.help, "metavar": declared.metavar}
    if isinstance(declared.kind, Counts):
        default = ",".join(map(str, default))  # as it is written
    if isinstance(declared.kind, Words):
        return click.option(*names, multiple=True, **more)
    return click.option(*names, default="auto" if isinstance(more["type"], BatchSize) else default, **more)


def argument_of(name: str, declared: Option) -> str:
    """Return the name of a command's argument for a declared option: its switch if it has one, else its name."""
    return (declared.switch or name).replace("-", "_")


def declared_options(holder: type[Any]) -> Callable[[Command], Command]:
    """Return what adds every declared option of a dataclass to a command, each as an argument of its own."""

    def added(command: Command) -> Command:
        for name in reversed(options_of(holder)):
            command = declared_option(name, holder)(command)
        return command

    return added


def scoring_options(command: Command) -> Command:
    """Add the options of a scoring pass; the command gets them as one `scoring` argument."""
    place = {
        "output": click.option(
            "-o", "--output", type=RunPlace(), metavar="RUN",
            help="Folder of the run.  [default: in .lossprobe/]",
        ),
        "overwrite": click.option("--overwrite", is_flag=True, help="Replace a run at -o that has other settings."),
    }  # fmt: skip
    return placed_scoring_options(command, place)


def placed_scoring_options(command: Command, place: Mapping[str, Callable[[Command], Command]]) -> Command:
    """Add the options of a scoring pass to a command; `place` says where the run goes, or is empty."""
    options: dict[str, Callable[[Any], Any]] = {
        "adapter": adapter_option,
        "desmooth": click.option(
            "--desmooth", type=click_type(Number(0, 1, below=True)), metavar="EPS", help=DESMOOTH_HELP
        ),
        **place,
        "quiet": click.option(
            "-q", "--quiet", is_flag=True, help="Show no progress, notices or next commands, and in a pipe no finding."
        ),
    }
    own = [name for name in options if name != "adapter"]
    for holder in HOLDERS.values():
        for name, declared in options_of(holder).items():
            options[argument_of(name, declared)] = declared_option(name, holder)

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        groups = {group: _held(holder, kwargs) for group, holder in HOLDERS.items()}
        groups["load"] = on_named_base(kwargs, groups["load"])
        scoring = Scoring(**groups, **{name: kwargs.pop(name) for name in own})
        return command(*args, **kwargs, scoring=scoring)

    for name in sorted(options, reverse=True):
        gathered = options[name](gathered)
    return gathered  # type: ignore[return-value]


def _held(holder: type[Any], given: dict[str, Any]) -> Any:
    """Return a dataclass of options with its values, which are removed from a command's arguments."""
    values = {}
    for name, declared in options_of(holder).items():
        value = given.pop(argument_of(name, declared))
        values[name] = not value if declared.switch else value
    return holder(**values)


def view_options(command: Command) -> Command:
    """Add the options that say where a result is written; the command gets them as one `outputs` argument."""
    options = (
        click.option(
            "--csv", metavar="[FILE]", help="Write the whole table as CSV; - is standard output.  [FILE: ends in .csv]"
        ),
        click.option("--json", is_flag=True, help="Print one JSON object, in full precision."),
        click.option("--markdown", is_flag=True, help="Print the table and the finding as Markdown."),
        click.option("--plot", metavar="[FILE]", help="Draw a picture.  [FILE: ends in .png, .svg or .pdf]"),
        click.option("--table", is_flag=True, help="Print the table even into a pipe, which gets CSV by default."),
        click.option("--wide", is_flag=True, help="Print all tables with all columns, however wide they are."),
    )
    return gather(command, options, Outputs, "outputs")


def json_option(command: Command) -> Command:
    """Add `--json` to a command that is no view."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def source_argument(command: Command) -> Command:
    """Add the argument of a view of one run: nothing (the latest run), RUN, or CHECKPOINT TEXT…."""
    return click.argument("sources", nargs=-1, type=RunPath(), metavar="[RUN | CHECKPOINT TEXT...]")(command)


def sources_argument(command: Command) -> Command:
    """Add the argument of a view of several models: nothing (the latest run), RUN…, or CHECKPOINT… TEXT."""
    return click.argument("sources", nargs=-1, type=RunPath(), metavar="[RUN... | CHECKPOINT... TEXT]")(command)


def given_scoring_options(context: click.Context) -> list[str]:
    """Return the options of a scoring pass that are given on the command line, not by environment variables."""
    names = ["adapter", *(field.name for field in fields(Scoring) if field.name not in HOLDERS)]
    for holder in HOLDERS.values():
        names += [argument_of(name, declared) for name, declared in options_of(holder).items()]
    given = [name for name in names if context.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    return [f"--{name.replace('_', '-')}" for name in sorted(given)]


def gather(command: Command, options: tuple[Callable[[Command], Command], ...], kind: type[Any], name: str) -> Command:
    """Return a command with options added, whose values it gets as one object.

    Args:
        command: the command.
        options: click options, one for each field of `kind`.
        kind: dataclass of the values.
        name: argument of the command that gets the object.
    """

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        values = {field.name: kwargs.pop(field.name) for field in fields(kind)}
        return command(*args, **kwargs, **{name: kind(**values)})

    for option in reversed(options):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]
