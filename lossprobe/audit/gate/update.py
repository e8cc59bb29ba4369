"""Updates a baseline: audits the model against the old baseline first, and replaces it only if the audit passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lossprobe.audit.checks.verdicts import AuditResult
from lossprobe.audit.gate.gate import Shown, audit_texts, unseen
from lossprobe.audit.gate.texts import Texts, baseline_columns, prepare
from lossprobe.audit.settings import AuditSettings
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.spec import Opener
from lossprobe.errors import NotComparableError
from lossprobe.passes.score import score
from lossprobe.run.baseline import write_baseline

OF_OTHERS = frozenset({"baseline.different", "baseline.columns"})  # an undamaged baseline of other settings or checks
DAMAGED = frozenset({"baseline.missing", "baseline.damaged", "baseline.schema"})


def update_baseline(
    settings: AuditSettings,
    checkpoint: Checkpoint,
    shown: Shown = unseen,
    *,
    force: bool = False,
    texts: Texts | None = None,
    opener: Opener | None = None,
) -> tuple[AuditResult, list[Path]]:
    """Audit a model against the old baseline and, if it passes, write its losses as the new baseline.

    If there is no old baseline, or one of another text, tokenizer, windows or dtype, no change is checked; for the
    latter a note says why. A damaged baseline is an error, because the changes since then cannot be checked any more.

    Args:
        settings: the audit file, with a place for baselines; whole texts are scored even with `stop_early`.
        checkpoint: the model.
        shown: returns a progress display for a text, given its title.
        force: replace the baseline even if the audit does not pass or the old baseline is damaged.
        texts: its texts, if they are read already; see `texts.read_texts`.
        opener: with which the model was opened; see `reference.audit_opener`.

    Returns:
        The result of the audit, and the folders written; no folders if the audit does not pass.

    Raises:
        NotComparableError: the old baseline is damaged, and `force` is not set.
    """
    whole, stored = replace(settings.stats, stop_early=False), replace(settings.baseline, missing="warn")
    settings = replace(settings, stats=whole, baseline=stored)
    tolerated = OF_OTHERS | DAMAGED if force else OF_OTHERS
    prepared = prepare(settings, checkpoint, texts, opener, tolerated=tolerated)
    try:
        found = audit_texts(settings, checkpoint, prepared, shown)
    except NotComparableError as error:
        if not force:
            raise
        prepared = [replace(text, baseline=None) for text in prepared]
        prepared[0].source.notices.append(error.message)
        found = audit_texts(settings, checkpoint, prepared, shown)
    comparable = {text.data.name for text in prepared if text.baseline is not None}
    checks = [each for each in found.checks if each.check.data in comparable or not each.check.limit.needs_baseline]
    result = replace(found, checks=checks)
    if result.verdict != "pass" and not force:
        return result, []
    written = []
    for text in prepared:
        if text.folder is not None and text.needs_baseline:
            run = score(checkpoint, text.source, settings.windows).run  # stored already
            write_baseline(run, text.folder, baseline_columns(text.checks))
            written.append(text.folder)
    return result, written
