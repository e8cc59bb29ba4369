"""The library speaks of arguments, the command line of the options that set them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import click
import pandas as pd
import pytest
from audit_results import audit_result, check_result
from bundled import CHECKPOINT
from source_code import PACKAGE, nodes

import lossprobe
from lossprobe.cli.main import cli, failure_of, run
from lossprobe.cli.wording import option_names, result_with_options, view_with_options, with_options
from lossprobe.errors import LossprobeError, UsageError
from lossprobe.report.views.view import View

SPEAK_OF_OPTIONS = ("cli", "terms", "bundled")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
ARGUMENT = re.compile(r"`([\w=]+)`")
COMMAND_LINE = re.compile(r"lossprobe( [a-z]+)+( RUNS?| --[a-z-]+( [a-z]+)?)*")  # a whole command to be typed
LIBRARY = [file for file in sorted(PACKAGE.rglob("*.py")) if file.relative_to(PACKAGE).parts[0] not in SPEAK_OF_OPTIONS]


def options(command: click.Command = cli) -> list[click.Option]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    found = [option for option in command.params if isinstance(option, click.Option)]
    return [*found, *(option for each in below for option in options(each))]


# Commands of other programs that a hint names, and arguments that only Python has.
OTHERS = re.compile(r"--output_(path|dir)|--input_name_or_path|--mlx-path OUT --dequantize")
ONLY_PYTHON = {"columns", "engine_options", "load_options", "name", "score", "text_options"}
SPELLINGS = {name for option in options() for name in (*option.opts, *option.secondary_opts)}


def test_an_argument_has_one_option():
    """So that the options of the running command say what those of all commands would."""
    spelled: dict[str, set[str]] = {}
    for option in options():
        spelled.setdefault(option.name or "", set()).add(option.opts[0])
    assert {name: several for name, several in spelled.items() if len(several) > 1} == {}
    assert len(spelled) > 80


def sentences(code: Iterable[ast.AST]) -> list[str]:
    """Return every text in the code that is no docstring."""
    found = list(code)
    bodies = [node.body for node in found if isinstance(getattr(node, "body", None), list)]
    docstrings = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    texts = [node for node in found if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in texts if id(node) not in docstrings]


def options_named(code: Iterable[ast.AST]) -> list[str]:
    texts = [OTHERS.sub("", COMMAND_LINE.sub("", sentence)) for sentence in sentences(code)]
    return [name for text in texts for name in OPTION.findall(text) if name in SPELLINGS]


def test_the_library_names_no_option():
    assert len(LIBRARY) > 300
    named = {file.name: options for file in LIBRARY if (options := options_named(nodes(file)))}
    assert named == {"foreign.py": ["--dtype"]}, "which is an option of the program that converts MLX folders"


def test_the_library_names_only_arguments_that_an_option_sets():
    known = option_names(cli).keys() | ONLY_PYTHON
    named = {file: {name for text in sentences(nodes(file)) for name in ARGUMENT.findall(text)} for file in LIBRARY}
    assert {file: names - known for file, names in named.items() if not names <= known} == {}
    assert "context" in set().union(*named.values())


@pytest.mark.parametrize("name", ["`context`: does not exist", "texts/`context`", "`context`.txt: empty", "`by`/b"])
def test_a_file_that_is_named_like_an_argument_keeps_its_name(name):
    assert with_options(name, cli) == name
    assert with_options("raise `context`.", cli) == "raise --context."


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ('"""--context"""\nx = f"raise --max-bytes or {y} -o"', ["--max-bytes", "-o"]),
        ('x = "lossprobe baseline update --force, or --force"', ["--force"]),
        ('x = "a--context, -c, --safe_serialization, --contexts"', []),
    ],
)
def test_the_rule_can_fail(code, named):
    assert options_named(ast.walk(ast.parse(code))) == named


def test_nobody_takes_a_message_apart():
    for file in LIBRARY:
        for node in nodes(file):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                taken = node.value.attr in ("message", "hint")
                assert not taken, f"{file}: line {node.lineno}: .{node.value.attr}.{node.attr}"


def test_an_argument_has_one_name_on_the_command_line():
    first = option_names(cli)
    for option in options():
        assert first[option.name] == option.opts[0]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`context` 0: a window needs at least 1 input token", "--context 0: a window needs at least 1 input token"),
        ("lower `batch_size` or `context`", "lower --batch-size or --context"),
        ("use another `output`, or `overwrite`", "use another -o, or --overwrite"),
        ("made with `keep_text=False`", "made with --no-text"),
        ("`ignore_config` flash", "--ignore-config flash"),
        ("`where` 'a `context` > 3': expected", "--where 'a `context` > 3': expected"),
        ("the model's `context`, transformers' `stride`", "the model's --context, transformers' --stride"),
        ("`no_option` and `context stride`", "`no_option` and `context stride`"),
        ("as an earlier lossprobe stored it: --context", "as an earlier lossprobe stored it: --context"),
    ],
)
def test_arguments_become_options(said, shown):
    assert with_options(said, cli) == shown


def test_every_declared_switch_has_a_name():
    assert option_names(cli)["keep_text=False"] == "--no-text"
    assert option_names(cli)["context"] == "--context", "not --max-length, which is a second name"


def test_errors_of_the_library_and_of_the_command_line(text, capsys):
    with pytest.raises(UsageError) as caught:
        lossprobe.open_text([text], lossprobe.TextOptions(split_documents="("))
    assert caught.value.message.startswith("`split_documents` (: ")
    assert run(["tokens", str(CHECKPOINT), str(text), "--split-documents", "(", "--json"]) == 2
    line, last = capsys.readouterr().err.splitlines()[-2:]
    assert line.startswith("lossprobe: error[text.separator]: --split-documents (: ")
    assert json.loads(last)["message"].startswith("--split-documents (: ")


def test_hints_name_options():
    failure = failure_of(LossprobeError("a.b", "`dtype` x", hint="raise `max_bytes`"))
    assert (failure.message, failure.hint) == ("--dtype x", "raise --max-bytes")
    assert failure_of(LossprobeError("a.b", "x")).hint is None


def test_an_error_knows_what_it_is_about():
    error = UsageError("a.b", "is empty", subject="x.txt", hint="y")
    assert (error.message, str(error), error.reason, error.subject) == ("x.txt: is empty",) * 2 + ("is empty", "x.txt")
    assert (error.told_of("x.txt"), error.told_of("other")) == ("is empty", "x.txt: is empty")
    assert UsageError("a.b", "x.txt: is empty").told_of("x.txt") == "x.txt: is empty"


@dataclass(frozen=True)
class Inner:
    notes: list[str]
    name: str = "`context`"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    several: tuple[Inner, ...]
    notes: list[str]
    finding: str
    table: pd.DataFrame = field(repr=False)


def test_sentences_of_a_view_change_and_texts_of_the_user_do_not():
    table = pd.DataFrame({"text": ["`context`", "b"], "why": ["`context` 5: too short", ""], "n": [1.5, 2.5]})
    before = Inner(["`bos` never"])
    result = Outer(before, (before, Inner(["plain"])), ["`max_bytes`"], "`context`", table)
    view = View("x", "`context`", result, lines=("`stride` 2",), more=(("`context`", table),))
    with cli.make_context("lossprobe", ["--debug"], resilient_parsing=True):
        shown = view_with_options(view)
    assert (shown.heading, shown.lines) == ("`context`", ("--stride 2",))
    told = shown.result
    assert (told.notes, told.finding) == (["--max-bytes"], "`context`")
    assert told.inner == told.several[0] == Inner(["--bos never"])
    assert told.several[1] is result.several[1]
    for changed in (told.table, shown.more[0][1]):
        assert changed["text"].tolist() == ["`context`", "b"]
        assert changed["why"].tolist() == ["--context 5: too short", ""]
        assert changed["n"].tolist() == [1.5, 2.5]
    assert table["why"][0] == "`context` 5: too short", "the result itself stays as it is"


def test_sentences_of_an_audit_change():
    result = audit_result(
        check_result(reason="`context` is short", id="`context`"), notes=["x: `special_strings` text"]
    )
    with cli.make_context("lossprobe", ["--debug"], resilient_parsing=True):
        shown = result_with_options(result)
        assert result_with_options(audit_result(notes=["plain"])) == audit_result(notes=["plain"])
    assert shown.notes == ["x: --special-strings text"]
    assert (shown.checks[0].reason, shown.checks[0].check.id) == ("--context is short", "`context`")
