"""The command `lossprobe audit`."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossprobe.cli.audit_file import (
    AuditFileOptions,
    audit_file_options,
    load_settings,
    open_model,
    refuse_unwritable_baselines,
)
from lossprobe.cli.inputs import is_same
from lossprobe.cli.streams import say_to_runner
from lossprobe.cli.wording import result_with_options, with_options
from lossprobe.errors import OutputError, UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.audit.checks.verdicts import AuditResult
    from lossprobe.audit.settings import AuditSettings

FORMATS = ("json", "junit", "markdown")
SUMMARY = "GITHUB_STEP_SUMMARY"
REPORT_HELP = "Also write a report in the format json, junit or markdown; may be given more than once."


class Report(click.ParamType[tuple[str, str]]):
    """Value of `--report`: FORMAT:PATH."""

    name = "format:path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the format and the path."""
        if isinstance(value, tuple):
            return value
        kind, _, path = str(value).partition(":")
        if kind not in FORMATS or not path or path == "-":
            self.fail(
                f"{visible(str(value), 80)!r} is not FORMAT:PATH with a FORMAT of {', '.join(FORMATS)}", param, ctx
            )
        return kind, path


@click.group(invoke_without_command=True, short_help="Check limits and changes in CI: pass, fail or inconclusive.")
@audit_file_options
@click.option("--report", "reports", type=Report(), multiple=True, metavar="FORMAT:PATH", help=REPORT_HELP)
@click.option("--annotations", is_flag=True, help="Also print workflow commands that mark failed checks on GitHub.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--print-config", is_flag=True, help="Print every setting and where it came from, and score nothing.")
@click.pass_context
def audit(context: click.Context, /, audit_file: AuditFileOptions, **choices: Any) -> None:
    """Check a checkpoint by the limits of an audit file: pass (exit code 0), fail (10) or inconclusive (11).

    \b
    Examples:
      lossprobe audit init my-model held-out.jsonl   write a starting file
      lossprobe baseline update                      store the losses to compare
      lossprobe audit --checkpoint new-model --report junit:audit.xml
    """
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(audit_file)
    if choices["print_config"]:
        _print_config(settings)
        return
    _check_reports([Path(path) for _, path in choices["reports"]])
    _refuse_inputs(_destinations(choices), settings)
    result = audit_now(settings, quiet=audit_file.quiet, reports=_destinations(choices))
    _show(result_with_options(result), choices)
    sys.stdout.flush()  # now, while a closed pipe can still be told apart from a verdict
    raise click.exceptions.Exit(result.exit_code)


@audit.command("init", short_help="Write a commented audit file for a checkpoint and texts.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="TEXT...")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("lossprobe.toml"), help="File to write.")
def init(checkpoint: Path, texts: Sequence[Path], output: Path) -> None:
    """Write a commented audit file for a checkpoint and one or more texts; a file that exists is not overwritten.

    \b
    Example:
      lossprobe audit init my-model held-out.jsonl
    """
    from lossprobe.audit.config.starter import starting_file
    from lossprobe.checkpoint.detect import refuse_missing
    from lossprobe.passes.order import refuse_checkpoints_as_texts, refuse_swapped, refuse_text_as_checkpoint
    from lossprobe.report.formats.output import write_text
    from lossprobe.report.talk import say

    refuse_swapped([checkpoint], texts)
    refuse_checkpoints_as_texts(texts)
    refuse_missing(checkpoint)
    refuse_text_as_checkpoint(checkpoint)
    if output.exists() or output.is_symlink():
        raise OutputError("output.exists", f"{visible(str(output), 200)}: exists", hint="choose another place with -o")
    write_text(str(output), starting_file(checkpoint, texts, output.absolute().parent))
    config = "" if output == Path("lossprobe.toml") else f" --config {visible(str(output), 200)}"
    say(f"next: lossprobe baseline update{config}, then lossprobe audit{config}")


def _destinations(choices: dict[str, Any]) -> list[Path]:
    """Return the files to which reports are written, with GitHub's step summary."""
    summary = os.environ.get(SUMMARY)
    return [*(Path(path) for _, path in choices["reports"]), *([Path(summary)] if summary else [])]


def audit_now(settings: AuditSettings, *, quiet: bool, reports: Sequence[Path] = ()) -> AuditResult:
    """Run an audit and return its result, with its progress on a terminal.

    Args:
        settings: the audit file.
        quiet: show no progress.
        reports: files that will be written afterwards; they must not be files of the checkpoint.
    """
    from lossprobe.audit.gate.gate import run_audit
    from lossprobe.audit.gate.texts import read_texts, refuse_missing_baselines
    from lossprobe.cli.progress import show_progress

    refuse_missing_baselines(settings)  # before the model is loaded, which takes a while
    texts = read_texts(settings)
    created = [settings.baseline.path] if settings.baseline.path and settings.baseline.missing == "create" else []
    if created:
        refuse_unwritable_baselines(settings)
    checkpoint, opener = open_model(settings, [*reports, *created])
    return run_audit(settings, checkpoint, functools.partial(show_progress, quiet=quiet), texts, opener)


def _show(result: AuditResult, choices: dict[str, Any]) -> None:
    """Print the result, and write the reports and GitHub's step summary."""
    from lossprobe.report.audit.annotations import audit_annotations
    from lossprobe.report.audit.json import audit_to_json
    from lossprobe.report.audit.junit import audit_to_junit
    from lossprobe.report.audit.markdown import audit_to_markdown
    from lossprobe.report.audit.text import audit_to_terminal
    from lossprobe.report.formats.output import STDOUT, append_bytes, write_bytes, write_text
    from lossprobe.report.talk import say

    writers = {
        "json": lambda: audit_to_json(result).encode(),
        "junit": lambda: audit_to_junit(result),
        "markdown": lambda: audit_to_markdown(result).encode(),
    }
    for kind, path in choices["reports"]:  # before printing, which fails if the reader of standard output has closed it
        write_bytes(path, [writers[kind]()])
    if os.environ.get(SUMMARY):
        try:
            append_bytes(os.environ[SUMMARY], writers["markdown"]())
        except OutputError as error:  # the user did not ask for the summary, so its failure must not change the verdict
            say(f"not added to the summary: {with_options(error.message)}")
    write_text(STDOUT, audit_to_json(result) if choices["as_json"] else audit_to_terminal(result))
    if choices["annotations"]:
        say_to_runner(audit_annotations(result), err=choices["as_json"])


def _print_config(settings: AuditSettings) -> None:
    from lossprobe.audit.config.origins import settings_table
    from lossprobe.report.formats.csv import to_csv
    from lossprobe.report.formats.output import STDOUT, write_text
    from lossprobe.report.formats.terminal import to_terminal

    table = settings_table(settings)
    title = f"settings of {visible(str(settings.file), 200)}"
    write_text(STDOUT, to_terminal(table, title, []) if sys.stdout.isatty() else to_csv(table))


def _refuse_inputs(destinations: Sequence[Path], settings: AuditSettings) -> None:
    """Refuse, before scoring, reports that would overwrite an input of the audit or lie in one.

    Raises:
        UsageError: a destination is an input or lies in one, also through links.
    """
    from lossprobe.run.reader import RUNS_FOLDER

    models = [model for model in (settings.model, settings.reference) if model is not None]
    inputs = [settings.file, settings.baseline.path, Path(RUNS_FOLDER)]
    inputs += [path for model in models for path in (model.checkpoint, model.tokenizer, model.base)]
    inputs += [data.path for data in settings.data] + ([settings.curve.log] if settings.curve else [])
    for destination in destinations:
        folders = destination.resolve().parents
        if any(path is not None and (is_same(destination, path) or path.resolve() in folders) for path in inputs):
            raise UsageError(
                "output.is_input",
                f"{visible(str(destination), 200)}: is, or lies in, an input of the audit, which is never changed",
            )


def _check_reports(destinations: Sequence[Path]) -> None:
    """Refuse, before scoring, reports that could not be written.

    Raises:
        UsageError: two reports have the same destination.
        OutputError: a destination cannot be written.
    """
    targets = [destination.resolve() for destination in destinations]
    for destination, target in zip(destinations, targets, strict=True):
        shown = visible(str(destination), 200)
        if targets.count(target) > 1:
            raise UsageError("output.two_results", f"{shown}: two reports in one place")
        if not target.parent.is_dir() or target.is_dir() or destination.is_symlink():
            reason = "its folder does not exist" if not target.parent.is_dir() else "is a folder or a symbolic link"
            raise OutputError("output.write", f"{shown}: cannot be written: {reason}")
