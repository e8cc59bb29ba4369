"""The options that replace values of an audit file, and the settings and checkpoint that result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.cli.inputs import protect_files, refuse_unwritable_folder
from lossprobe.cli.options import Command, gather
from lossprobe.cli.values import click_type
from lossprobe.cli.workers import chosen_engine, engine_options, refuse_workers, working_opener
from lossprobe.options.declare import options_of

if TYPE_CHECKING:
    from lossprobe.audit.settings import AuditSettings
    from lossprobe.checkpoint.interface import Checkpoint
    from lossprobe.checkpoint.spec import Opener


@dataclass(frozen=True)
class AuditFileOptions:
    """The values of the options in `audit_file_options`; None for an option that is not given."""

    config: Path | None
    checkpoint: str | None
    tokenizer: str | None
    device: str | None
    dtype: str | None
    baseline: str | None
    seed: int | None
    stop_early: bool | None
    quiet: bool


def audit_file_options(command: Command) -> Command:
    """Add the options that replace values of an audit file, as one argument `audit_file`, and those of the engine."""
    config = "Audit file.  [default: lossprobe.toml, or [tool.lossprobe] of pyproject.toml]"
    place = click.Path(exists=True, path_type=Path)
    dtype = options_of(LoadOptions)["dtype"].kind
    options = (
        click.option("--config", type=place, metavar="FILE", help=config),
        click.option("--checkpoint", metavar="CHECKPOINT", help="Replace model.checkpoint of the audit file."),
        click.option("--tokenizer", metavar="FILE", help="Replace model.tokenizer of the audit file."),
        click.option("--device", metavar="auto|cpu|cuda[:N]|mps", help="Replace model.device of the audit file."),
        click.option("--dtype", type=click_type(dtype), help="Replace model.dtype of the audit file."),
        click.option("--baseline", metavar="FOLDER", help="Replace baseline.path of the audit file."),
        click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), help="Replace stats.seed of the audit file."),
        click.option("--stop-early/--no-stop-early", default=None, help="Replace stats.stop_early of the audit file."),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
    )
    return engine_options(gather(command, options, AuditFileOptions, "audit_file"))


def load_settings(given: AuditFileOptions) -> AuditSettings:
    """Return the settings of the audit file, with values replaced by environment variables and options.

    Raises:
        UsageError: there is no audit file, or it is refused; see `audit.config.reader`.
    """
    from lossprobe.audit.config.overrides import OPTION_KEYS
    from lossprobe.audit.config.reader import Override, find_config, read_settings

    path = given.config or find_config(Path())
    context = click.get_current_context()
    overrides = [
        Override(OPTION_KEYS[field.name], getattr(given, field.name), _origin(context, field.name))
        for field in fields(given)
        if field.name in OPTION_KEYS and getattr(given, field.name) is not None
    ]
    return read_settings(path, overrides)


def _origin(context: click.Context, name: str) -> str:
    if context.get_parameter_source(name) == ParameterSource.ENVIRONMENT:
        return f"{context.auto_envvar_prefix}_{name.upper()}"
    return "--no-stop-early" if context.params.get(name) is False else f"--{name.replace('_', '-')}"


def open_model(settings: AuditSettings, written: Sequence[Path] = ()) -> tuple[Checkpoint, Opener]:
    """Return the checkpoint of an audit file, whose model is loaded when it is needed, and what opens its reference.

    Args:
        settings: the audit file.
        written: files and folders to which reports and baselines will be written.

    Raises:
        UsageError: one of `written` is a file of the checkpoint, or lies in it; or workers cannot be used.
        LossprobeError: as in `audit.gate.reference.open_audited`.
    """
    from lossprobe.audit.gate.reference import audit_opener, open_audited

    work = chosen_engine()
    if settings.reference is not None:
        refuse_workers(work, "the distance from a reference model")
    opener = working_opener(work, audit_opener(settings))
    checkpoint = open_audited(settings, opener)
    protect_files(written, checkpoint.facts.files)
    return checkpoint, opener


def refuse_unwritable_baselines(settings: AuditSettings) -> None:
    """Refuse, before anything is scored, folders of baselines that cannot be written.

    Raises:
        OutputError: one cannot be.
    """
    if settings.baseline.path is not None:
        for data in settings.data:
            refuse_unwritable_folder(settings.baseline.path / data.name)
