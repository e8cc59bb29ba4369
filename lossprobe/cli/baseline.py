"""The command `lossprobe baseline`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lossprobe.cli.audit_file import (
    AuditFileOptions,
    audit_file_options,
    load_settings,
    open_model,
    refuse_unwritable_baselines,
)
from lossprobe.cli.wording import result_with_options, with_options
from lossprobe.errors import UsageError
from lossprobe.units import visible

if TYPE_CHECKING:
    from lossprobe.audit.checks.verdicts import AuditResult
    from lossprobe.audit.settings import AuditSettings

YIELDS = ("columns", "lossprobe", "bytes_per_token", "dtype", "documents")  # of `show`, in a narrow terminal


@click.group(invoke_without_command=True, short_help="Update, show or check the losses that audits compare with.")
@click.pass_context
def baseline(context: click.Context, /) -> None:
    """Update, show or check the baseline: stored losses of an accepted model, from which audits measure changes.

    It takes a few bytes per token, small enough to commit.

    \b
    Examples:
      lossprobe baseline update   make the audit file's model the baseline
      lossprobe baseline show     show what is stored
      lossprobe baseline check    check that it still fits the audit
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@baseline.command(short_help="Make the audit file's model the baseline.")
@audit_file_options
@click.option("--force", is_flag=True, help="Write it even if the audit does not pass or the old baseline is damaged.")
def update(audit_file: AuditFileOptions, force: bool) -> None:
    """Audit the model against the old baseline, and if it passes, store its losses as the new baseline.

    \b
    Example:
      lossprobe baseline update --checkpoint new-model
    """
    import functools

    from lossprobe.audit.gate.texts import read_texts
    from lossprobe.audit.gate.update import update_baseline
    from lossprobe.cli.progress import show_progress
    from lossprobe.report.talk import say

    settings = _with_baseline(load_settings(audit_file))
    shown = functools.partial(show_progress, quiet=audit_file.quiet)
    assert settings.baseline.path is not None
    texts = read_texts(settings)  # before the model is loaded
    refuse_unwritable_baselines(settings)
    model, opener = open_model(settings, [settings.baseline.path])
    result, written = update_baseline(settings, model, shown, force=force, texts=texts, opener=opener)
    _show_result(result)
    if not written:
        say(f"no baseline was written: {result.finding}; --force writes it anyway")
        raise click.exceptions.Exit(result.exit_code)
    for folder in written:
        say(f"wrote {visible(str(folder), 200)}")


def _show_result(result: AuditResult) -> None:
    """Print the checks of an audit, or where no change could be checked the notes that say why."""
    from lossprobe.report.audit.text import audit_to_terminal
    from lossprobe.report.formats.output import STDOUT, write_text
    from lossprobe.report.talk import say

    if result.checks:
        write_text(STDOUT, audit_to_terminal(result_with_options(result)))
    for note in () if result.checks else result.notes:
        say(f"note: {with_options(note)}")


@baseline.command(short_help="Show what is stored.")
@audit_file_options
def show(audit_file: AuditFileOptions) -> None:
    """Show the stored baseline of each text: model, tokens, loss and size.

    \b
    Example:
      lossprobe baseline show
    """
    from lossprobe.audit.checks.stored import baseline_table
    from lossprobe.cli.present import table_width
    from lossprobe.report.formats.output import STDOUT, write_text
    from lossprobe.report.formats.terminal import to_terminal

    settings = _with_baseline(load_settings(audit_file))
    folder = settings.baseline.path
    assert folder is not None
    title = f"baseline {visible(str(folder), 200)}"
    write_text(STDOUT, to_terminal(baseline_table(folder), title, [], table_width(), yields=YIELDS))


@baseline.command(short_help="Check that it still fits text, tokenizer, windows and dtype.")
@audit_file_options
def check(audit_file: AuditFileOptions) -> None:
    """Check without scoring that the baseline is intact and fits the text, tokenizer, windows and dtype of the audit.

    \b
    Example:
      lossprobe baseline check
    """
    from lossprobe.audit.gate.texts import prepare, read_texts

    settings = _with_baseline(load_settings(audit_file))
    settings = replace(settings, baseline=replace(settings.baseline, missing="error"))
    texts = read_texts(settings)
    model, opener = open_model(settings)
    prepared = prepare(settings, model, texts, opener)
    for text in prepared:
        if text.baseline is not None:
            tokens = text.baseline.counts["scored_tokens"]
            shown = visible(str(text.baseline.path), 200)
            click.echo(f"{shown}: intact and comparable, {tokens:,} tokens of {visible(text.baseline.name, 80)}")


def _with_baseline(settings: AuditSettings) -> AuditSettings:
    """Return the settings, and refuse an audit file that names no baseline or has no check that needs one.

    Raises:
        UsageError: the audit file is refused.
    """
    shown = visible(str(settings.file), 200)
    if settings.baseline.path is None:
        raise UsageError("audit.no_baseline", f"{shown}: names no baseline", hint='[baseline] path = "baselines/main"')
    if not any(check.limit.needs_baseline and check.level != "off" for check in settings.checks):
        raise UsageError(
            "audit.no_baseline", f"{shown}: no check measures a change", hint="give one max_increase or max_decrease"
        )
    return settings
