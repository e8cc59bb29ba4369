"""Every option that more than one command takes, once; and the two ways in which options reach a command."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lossprobe.errors import UsageError
from lossprobe.units import visible

Command = TypeVar("Command", bound=Callable[..., Any])
SUFFIXES = {"--csv": ".csv", "--plot": ".png"}
SPECIAL_STRINGS = ["control", "text"]
DTYPES = ["auto", "float32", "bfloat16", "float16"]
BOS_HELP = "A BOS before each document: where the tokenizer adds one by itself, always, or never."
CONTEXT_HELP = "Most input tokens of a window.  [default: the model's limit]"
DESMOOTH_HELP = "Score the predictions with the uniform part of label smoothing EPS taken off (torch convention)."
DTYPE_HELP = "Numbers of the forward pass; auto: as the weights are stored. Losses are float32 always."
GELU_HELP = "GELU of a nanoGPT checkpoint, which does not say (tanh before June 2023)."
IGNORE_HELP = "Leave out a key of the checkpoint's configuration that you know not to matter; may be repeated."
SPECIAL_HELP = "What the name of a special token (<|endoftext|>) in a text is: its control id, or text."
STRIDE_HELP = "New tokens scored by each window after the first.  [default: no overlap]"
TOKENIZER_HELP = "tokenizer.json or meta.pkl, when the checkpoint has none."
UNKNOWN_HELP = "Refuse a text with a larger share of tokens outside the vocabulary."
DEFAULT_FILE = "\0default"  # stands for "the command's own name"; no file can be called so


@dataclass(frozen=True)
class Scoring:
    """How a view or `score` scores: one attribute an option."""

    context: int | None
    stride: int | None
    bos: str
    batch_size: int | None
    desmooth: float | None
    device: str
    dtype: str
    tokenizer: Path | None
    gelu: str
    ignore_config: tuple[str, ...]
    special_strings: str
    split_documents: str | None
    text_field: str | None
    newlines: str
    max_bytes: int
    follow_links: bool
    max_unknown: float
    score_unknown: bool
    no_text: bool
    output: Path | None
    overwrite: bool
    quiet: bool


@dataclass(frozen=True)
class Outputs:
    """Where a view's result goes: one attribute an option."""

    csv: str | None
    plot: str | None
    json: bool
    markdown: bool
    table: bool

    def __post_init__(self) -> None:
        """Refuse two results for standard output, before anything is measured."""
        if [self.csv, self.plot].count("-") + self.json + self.markdown + self.table > 1:
            raise UsageError(
                "output.two_results",
                "--csv -, --plot -, --json, --markdown and --table: only one of them can have standard output",
            )


class Count(click.IntRange):
    """A positive number below what any text needs: libraries count in 64 bits, and fail in their own words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        number = int(super().convert(value, param, ctx))
        if number > 1 << 40:
            self.fail(f"{visible(str(value), 40)} is more than {1 << 40:,}", param, ctx)
        return number


class Real(click.FloatRange):
    """A number in a range: click lets "nan" pass, with which every comparison is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


COUNT = Count(min=1)


class BatchSize(click.ParamType[int | None]):
    """A positive number, or `auto` (None)."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, or None for `auto`."""
        if value == "auto" or value is None:
            return None
        return int(COUNT.convert(value, param, ctx))


class ViewCommand(click.Command):
    """A command whose `--csv` and `--plot` take a FILE only when what follows looks like one.

    Without this, `lossprobe positions --plot RUN` would take RUN for the name of the picture.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, giving a bare `--csv` or `--plot` its default file."""
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
    """Refuse what follows a bare `--csv` or `--plot` and is neither its file nor a source that is there.

    Raises:
        UsageError: as in `--csv out.txt`, which would be read as a source.
    """
    if follows and not follows.startswith("-") and not Path(follows).exists():
        shown = visible(follows, 100)
        raise UsageError(
            "output.suffix", f"{option} {shown}: does not end in {SUFFIXES[option]}, and no such source is there",
            hint=f"{option}={shown} takes any name",
        )  # fmt: skip


def scoring_options(command: Command) -> Command:
    """Add the options of the pass; the command gets them as one `scoring` argument."""
    folder = click.Path(path_type=Path)
    file = click.Path(path_type=Path, exists=True)
    options = (
        click.option("--batch-size", type=BatchSize(), default="auto", help="Most windows per forward pass."),
        click.option("--bos", type=click.Choice(["auto", "always", "never"]), default="auto", help=BOS_HELP),
        click.option("--context", "--max-length", "context", type=COUNT, help=CONTEXT_HELP),
        click.option("--desmooth", type=Real(0, 1, max_open=True), metavar="EPS", help=DESMOOTH_HELP),
        click.option("--device", default="cpu", metavar="auto|cpu|cuda[:N]|mps", help="Where the model runs."),
        click.option("--dtype", type=click.Choice(DTYPES), default="float32", help=DTYPE_HELP),
        click.option(
            "--follow-links", is_flag=True, help="Read also what links in a folder of texts lead to outside it."
        ),
        click.option("--gelu", type=click.Choice(["erf", "tanh"]), default="erf", help=GELU_HELP),
        click.option("--ignore-config", multiple=True, metavar="KEY", help=IGNORE_HELP),
        click.option("--max-bytes", type=COUNT, default=1 << 31, help="Refuse longer texts."),
        click.option("--max-unknown", type=Real(0, 1), default=0.01, help=UNKNOWN_HELP),
        click.option("--newlines", type=click.Choice(["keep", "lf"]), default="keep", help="lf: CRLF and CR to LF."),
        click.option("--no-text", is_flag=True, help="Keep the text itself out of the run (confidential texts)."),
        click.option("-o", "--output", type=folder, metavar="RUN", help="Run directory.  [default: in .lossprobe/]"),
        click.option("--overwrite", is_flag=True, help="Replace a run with other settings at -o."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no notices, no next commands."),
        click.option("--score-unknown", is_flag=True, help="Score tokens outside the vocabulary too."),
        click.option("--special-strings", type=click.Choice(SPECIAL_STRINGS), default="control", help=SPECIAL_HELP),
        click.option("--split-documents", metavar="blank-line|line|REGEX", help="Cut files into documents here."),
        click.option("--stride", type=COUNT, help=STRIDE_HELP),
        click.option("--text-field", metavar="NAME", help="Text field of a JSONL.  [default: text, for .jsonl]"),
        click.option("--tokenizer", type=file, help=TOKENIZER_HELP),
    )
    return gather(command, options, Scoring, "scoring")


def view_options(command: Command) -> Command:
    """Add the options of a result; the command gets them as one `outputs` argument."""
    options = (
        click.option(
            "--csv", metavar="[FILE]", help="Write the whole table as CSV; - is stdout.  [FILE: ends in .csv]"
        ),
        click.option("--json", is_flag=True, help="Print one JSON object, in full precision."),
        click.option("--markdown", is_flag=True, help="Print the table and the finding as Markdown."),
        click.option("--plot", metavar="[FILE]", help="Draw a PNG.  [FILE: ends in .png]"),
        click.option(
            "--table", is_flag=True, help="Print the terminal table also into a pipe (which gets CSV otherwise)."
        ),
    )
    return gather(command, options, Outputs, "outputs")


def source_argument(command: Command) -> Command:
    """Add the source of a view: nothing (latest run), RUN, or CHECKPOINT TEXT…."""
    return click.argument("sources", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN | CHECKPOINT TEXT...]")(
        command
    )


def sources_argument(command: Command) -> Command:
    """Add the sources of a view of several models: nothing (latest run), RUN…, or CHECKPOINT… TEXT."""
    return click.argument(
        "sources", nargs=-1, type=click.Path(path_type=Path), metavar="[RUN... | CHECKPOINT... TEXT]"
    )(command)


def given_options(context: click.Context, kind: type[Any]) -> list[str]:
    """Return the options of a group that stand on the command line (a variable may serve other commands too)."""
    return [
        f"--{field.name.replace('_', '-')}"
        for field in fields(kind)
        if context.get_parameter_source(field.name) == ParameterSource.COMMANDLINE
    ]


def gather(command: Command, options: tuple[Callable[[Command], Command], ...], kind: type[Any], name: str) -> Command:
    """Return the command with options whose values it receives as one frozen object."""

    @functools.wraps(command)
    def gathered(*args: Any, **kwargs: Any) -> Any:
        values = {field.name: kwargs.pop(field.name) for field in fields(kind)}
        return command(*args, **kwargs, **{name: kind(**values)})

    for option in reversed(options):
        gathered = option(gathered)
    return gathered  # type: ignore[return-value]


def file_name(given: str | None, command: str, suffix: str) -> str | None:
    """Return the file of `--csv` or `--plot`: the one given, the command's name, or None when not asked for.

    Raises:
        UsageError: an empty name.
    """
    if given == "":
        raise UsageError("output.name", f"--{suffix.strip('.')}: the file name is empty")
    return f"{command}{suffix}" if given == DEFAULT_FILE else given
