"""Runs an audit of a checkpoint by the settings of an audit file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lossprobe.audit.checks.verdicts import AuditResult, CheckResult, TextResult
from lossprobe.audit.gate.early import audit_early, needs_whole_text
from lossprobe.audit.gate.texts import AuditText, Texts, prepare
from lossprobe.audit.gate.training_log import check_log
from lossprobe.audit.gate.whole import audit_whole
from lossprobe.audit.settings import AuditSettings
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.spec import Opener
from lossprobe.passes.score import Progress
from lossprobe.run.identity import Settings, identity_of

Shown = Callable[[str], AbstractContextManager[Progress | None]]


def unseen(_title: str) -> AbstractContextManager[Progress | None]:
    """Show no progress."""
    return nullcontext(None)


def run_audit(
    settings: AuditSettings,
    checkpoint: Checkpoint,
    shown: Shown = unseen,
    texts: Texts | None = None,
    opener: Opener | None = None,
) -> AuditResult:
    """Return the verdict on every check of an audit file.

    Runs are stored under `.lossprobe/` and reused, so that every view can show them afterwards. With `stop_early`, a
    text that is scored in part is not stored.

    Args:
        settings: the audit file.
        checkpoint: its model.
        shown: returns a progress display for a text, given its title.
        texts: its texts, if they are read already; see `texts.read_texts`.
        opener: with which the model was opened; see `reference.audit_opener`.

    Raises:
        NotComparableError: a baseline is missing or cannot be paired with the run.
        LossprobeError: see `passes.score.score`.
    """
    return audit_texts(settings, checkpoint, prepare(settings, checkpoint, texts, opener), shown)


def audit_texts(
    settings: AuditSettings, checkpoint: Checkpoint, prepared: Sequence[AuditText], shown: Shown = unseen
) -> AuditResult:
    """Return the result of `run_audit` for texts from `texts.prepare`."""
    texts: list[TextResult] = []
    results: dict[str, CheckResult] = {}
    of_log, notes = check_log(settings, checkpoint.facts.vocab_size)
    for text in prepared:
        with shown(f"auditing {text.source.name}") as progress:
            whole = needs_whole_text(settings, text) if settings.stats.stop_early else None
            if settings.stats.stop_early and whole is None:
                found, of_text = audit_early(settings, checkpoint, text, progress)
            else:
                notes += [f"{text.data.name}: cannot stop early: {whole}"] if whole else []
                found, of_text = audit_whole(settings, checkpoint, text, progress)
        texts.append(of_text)
        results |= {result.check.id: result for result in found}
        notes += [note for note in _notes(text, checkpoint) if note not in notes]
    if not results and not of_log:
        notes.append("every check is off: nothing was measured")
    return AuditResult(
        file=str(settings.file),
        model=checkpoint.facts.name,
        model_sha256=checkpoint.facts.sha256,
        confidence=settings.stats.confidence,
        seed=settings.stats.seed,
        stop_early=settings.stats.stop_early,
        texts=texts,
        checks=[*(results[check.id] for check in settings.checks if check.id in results), *of_log],
        notes=notes,
    )


def _notes(text: AuditText, checkpoint: Checkpoint) -> list[str]:
    """Return the notices of the checkpoint, of a text, and about versions that differ from its baseline's."""
    notes = [*checkpoint.facts.notices, *text.source.notices]
    if text.baseline is not None:
        before, now = map(_made_with, (identity_of(text.baseline.manifest), text.settings))
        changed = [f"{key} {old} then, {now.get(key)} now" for key, old in before.items() if old != now.get(key)]
        if changed:
            notes.append(f"{text.data.name}: the baseline was made with {', '.join(changed)}")
    return notes


def _made_with(identity: Settings) -> dict[str, Any]:
    """Return the settings that change losses only by rounding: versions and type of device."""
    return {**identity["versions"], "device": identity["checkpoint"].get("device")}
