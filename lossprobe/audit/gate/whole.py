"""Audits whole texts: scores each text, or finds its stored run, and measures its checks."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.analysis.per_byte import why_not_per_byte
from lossprobe.analysis.rows.clusters import copies_per_token, find_clusters
from lossprobe.audit.checks.decisions import Measurement, conclude, measure_from_rows, measure_from_sums
from lossprobe.audit.checks.metrics import METRICS, Metric, metric_of
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.checks.verdicts import CheckResult, TextResult
from lossprobe.audit.gate.reference import beside_reference, of_pair
from lossprobe.audit.gate.texts import AuditText, baseline_columns, to_be_created
from lossprobe.audit.settings import AuditSettings, Check
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import TextError
from lossprobe.passes.score import Progress, score
from lossprobe.run.baseline import open_baseline, write_baseline
from lossprobe.run.reader import Run


def audit_whole(
    settings: AuditSettings, checkpoint: Checkpoint, text: AuditText, progress: Progress | None
) -> tuple[list[CheckResult], TextResult]:
    """Return the verdicts on one text, after scoring all of it."""
    run = score(checkpoint, text.source, settings.windows, progress=progress).run
    scored = AuditedRun(run, find_clusters(run), text.baseline)
    paired = of_pair(text.checks)
    alone = [check for check in text.checks if check not in paired]
    if scored.clusters.note:
        text.source.notices.append(scored.clusters.note)
    refuse_per_byte(run, text.checks)
    scored.refuse_other_tokens()
    results = _measure_all(alone, scored, settings.stats.confidence)
    accepted = all(result.effect in ("pass", "warn") for result in results if not result.check.limit.needs_baseline)
    if text.folder is not None and accepted and to_be_created(settings, text):
        write_baseline(run, text.folder, baseline_columns(text.checks))
        text.source.notices.append(f"{text.data.name}: the baseline was missing and has been made from this model")
        scored = AuditedRun(run, scored.clusters, open_baseline(text.folder))
        results = _measure_all(alone, scored, settings.stats.confidence)
    if text.reference is not None:
        beside = beside_reference(text.reference, checkpoint, text.source, settings.windows, run, progress)
        results += _measure_all(paired, beside, settings.stats.confidence)
    baseline = scored.baseline
    counts = run.counts
    return results, TextResult(
        name=text.data.name,
        text=run.text_name,
        sha256=text.settings["text"]["sha256"],
        tokens=counts["tokens"],
        scored_tokens=counts["scored_tokens"],
        documents=counts["documents"],
        scored_share=1.0,
        baseline=None if baseline is None else baseline.name,
        reference=None if text.reference is None else text.reference.facts.name,
    )


def refuse_per_byte(run: Run, checks: Sequence[Check]) -> None:
    """Refuse a check of a metric per byte if the bytes of the tokens are not known.

    Raises:
        TextError: the tokenizer leaves out part of the text, or does not give the bytes of its tokens.
    """
    reason = why_not_per_byte(run.counts)
    for check in checks if reason else ():
        if METRICS[check.metric].per_byte:
            raise TextError("text.no_bytes", f"{run.text_name}: check {check.id}: no {check.metric}, {reason}")


def _measure_all(checks: Sequence[Check], scored: AuditedRun, confidence: float) -> list[CheckResult]:
    longest = int(scored.run.scalar("SELECT max(context) FROM tokens WHERE unscored IS NULL"))
    identical, results = scored.identical(), []
    for check in checks:
        metric = metric_of(check, longest)
        measured = measure_check(check, metric, scored, confidence)
        results.append(conclude(check, metric, measured.exactly() if identical else measured, confidence))
    return results


def measure_check(check: Check, metric: Metric, scored: AuditedRun, confidence: float) -> Measurement:
    """Return the estimates of a check on a whole text."""
    if metric.smooth:
        copies = copies_per_token(scored.run, scored.rows(check), "compared")
        return measure_from_sums(check, metric, scored.sums(check, metric), confidence, copies=copies)
    return measure_from_rows(check, metric, scored, confidence)
