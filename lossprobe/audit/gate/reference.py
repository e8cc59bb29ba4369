"""Measures how far the model of an audit is from a reference model: the one that it was made from."""

from __future__ import annotations

from collections.abc import Iterable

from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.same_tokens import Described, refuse_other_vocabulary
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.gate.named import naming
from lossprobe.audit.settings import AuditSettings, Check, ModelSettings
from lossprobe.checkpoint.detect import refuse_missing
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.errors import NotComparableError
from lossprobe.passes.known_checkpoint import keep_known, open_when_needed
from lossprobe.passes.order import has_adapter
from lossprobe.passes.score import Progress, planned_run, score_into
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.reader import Run
from lossprobe.text.documents import Source


def of_pair(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that limit how far the model is from the reference."""
    return [check for check in checks if METRICS[check.metric].of_pair]


def audit_opener(settings: AuditSettings) -> Opener:
    """Return what opens the checkpoints of an audit: both stay in memory, and an adapter shares its base's weights."""
    models = [model.checkpoint for model in (settings.model, settings.reference) if model is not None]
    return Opener(keep=len(models), share_base=has_adapter(models))


def open_audited(settings: AuditSettings, opener: Opener | None = None) -> Checkpoint:
    """Return the checkpoint that is audited; its model is loaded when it is needed.

    Args:
        settings: the audit file.
        opener: from `audit_opener`, to open the reference with too; None for one of its own.

    Raises:
        UsageError: a reference model that a check needs does not exist, which is known before a model is loaded.
        LossprobeError: it is refused; see `checkpoint.detect.open_checkpoint`.
    """
    reference = settings.reference
    if reference is not None and of_pair(check for data in settings.data for check in settings.checks_of(data)):
        with naming(settings, "reference", reference):
            refuse_missing(reference.checkpoint)
    return _open(settings, "model", settings.model, opener)


def open_reference(settings: AuditSettings, checks: Iterable[Check], opener: Opener | None = None) -> Checkpoint | None:
    """Return the reference model of an audit, loaded when it is needed; None if no check compares with it.

    Args:
        settings: the audit file.
        checks: the checks whose level is not "off".
        opener: with which the model that is audited was opened; None for one of its own.

    Raises:
        LossprobeError: it is refused; see `checkpoint.detect.open_checkpoint`.
    """
    if settings.reference is None or not of_pair(checks):
        return None
    return _open(settings, "reference", settings.reference, opener)


def _open(settings: AuditSettings, table: str, model: ModelSettings, opener: Opener | None) -> Checkpoint:
    """Return the checkpoint of a table of the audit file."""
    with naming(settings, table, model):
        return open_when_needed(CheckpointSpec(model.checkpoint, model.load), opener or Opener())


def refuse_other_reference(reference: Checkpoint, planned: Described, source: Source, options: ScoreOptions) -> None:
    """Refuse, before anything is scored, a reference whose tokens of a text, or meanings of ids, are others.

    Args:
        reference: the reference model.
        planned: what is known of the run of the model that is audited.
        source: the text, rendered for the model that is audited.
        options: its windows.

    Raises:
        NotComparableError: the tokens of the text, or the meanings of ids, differ.
    """
    try:
        refuse_other_vocabulary(planned_run(reference, source, options), planned)
    except NotComparableError as error:
        error.hint = "leave out the checks of a distance from the reference"
        raise


def beside_reference(
    reference: Checkpoint,
    checkpoint: Checkpoint,
    source: Source,
    options: ScoreOptions,
    run: Run,
    progress: Progress | None = None,
) -> AuditedRun:
    """Return the tokens of a text with how far the model is from the reference on each; what is stored is not repeated.

    Both models see the same tokens, also where their chat templates differ. It is the pair that
    `compare reference checkpoint text --kl` shows.

    Args:
        reference: model A, from which the divergence is measured.
        checkpoint: model B, which is audited.
        source: the text; it gets a notice if the windows are not those of `run`.
        options: its windows.
        run: the run of model B.
        progress: called with the tokens done so far and the tokens to do, in each pass.
    """
    from lossprobe.passes.divergence import score_pair  # loads torch, which an audit of stored runs does not need

    before = score_into(None, reference, source, options, progress=progress).run
    keep_known(reference)
    pair = score_pair((before, run), (reference, checkpoint), source.notices, options.batch_size, progress)
    if pair.planned.context != run.context:
        source.notices.append(
            f"{source.name}: distances from {before.name} are measured with its context of {before.context} tokens"
        )
    return AuditedRun(pair.rows, find_clusters(pair.rows))
