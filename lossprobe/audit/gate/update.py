"""A new baseline: what changed since the old one is measured first, and only a model that passes replaces it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lossprobe.audit.checks.verdicts import AuditResult
from lossprobe.audit.gate.gate import Shown, audit_texts, unseen
from lossprobe.audit.gate.texts import baseline_columns, prepare
from lossprobe.audit.settings import AuditSettings
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import NotComparableError
from lossprobe.passes.score import score
from lossprobe.run.baseline import write_baseline

OF_OTHERS = frozenset({"baseline.different", "baseline.columns"})  # a sound baseline, and no longer this audit's
DAMAGED = frozenset({"baseline.missing", "baseline.damaged", "baseline.schema"})


def update_baseline(
    settings: AuditSettings, checkpoint: Checkpoint, shown: Shown = unseen, *, force: bool = False
) -> tuple[AuditResult, list[Path]]:
    """Return the audit of a model against the old baseline, and the folders of the new one.

    Where there is no old baseline, or one of another text, tokenizer, windows or dtype, there are no changes to check,
    and a note says why. A damaged one is no missing one: what it held the model against is not known any more.

    Args:
        settings: the audit file, with a place for the baseline; whole texts are scored.
        checkpoint: the model.
        shown: makes the progress of each text, given a title.
        force: replace the baseline although the audit does not pass, or it is damaged.

    Returns:
        The result; the folders are none where the audit does not pass, and nothing was written.

    Raises:
        NotComparableError: the old baseline is damaged, and the new one is not forced.
    """
    whole, stored = replace(settings.stats, stop_early=False), replace(settings.baseline, missing="warn")
    settings = replace(settings, stats=whole, baseline=stored)
    texts = prepare(settings, checkpoint, tolerated=OF_OTHERS | DAMAGED if force else OF_OTHERS)
    try:
        found = audit_texts(settings, checkpoint, texts, shown)
    except NotComparableError as error:
        if not force:
            raise
        texts = [replace(text, baseline=None) for text in texts]
        texts[0].source.notices.append(error.message)
        found = audit_texts(settings, checkpoint, texts, shown)
    comparable = {text.data.name for text in texts if text.baseline is not None}
    checks = [each for each in found.checks if each.check.data in comparable or not each.check.limit.needs_baseline]
    result = replace(found, checks=checks)
    if result.verdict != "pass" and not force:
        return result, []
    written = []
    for text in texts:
        if text.folder is not None and text.needs_baseline:
            run = score(checkpoint, text.source, settings.windows).run  # stored already
            write_baseline(run, text.folder, baseline_columns(text.checks))
            written.append(text.folder)
    return result, written
