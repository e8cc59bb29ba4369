"""Decides whether a check with a clear interval may be decided before the whole text is scored.

See `analysis.stopping` for the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossprobe.analysis.stats.resampling import Floats
from lossprobe.analysis.stopping import PASS_SHARE, RARE, beyond_doubt, documents_to_pass, most_skewness, skewness
from lossprobe.audit.checks.decisions import Measurement, decide, held_scale
from lossprobe.audit.checks.estimates import jackknife
from lossprobe.audit.checks.metrics import Metric
from lossprobe.audit.settings import Check
from lossprobe.run.reader import Run
from lossprobe.units import plural


@dataclass(frozen=True)
class Look:
    """An interim analysis (a look) of a part of a text.

    Attributes:
        documents: scored documents with tokens in the check's slice.
        scored: scored documents.
        planned: documents of the whole text.
        confidence: confidence level of the audit.
    """

    documents: int
    scored: int
    planned: int
    confidence: float


def baseline_skew(baseline: Run) -> float:
    """Return the skewness of the mean losses of all documents under a baseline, or 0 without any loss."""
    means = baseline.query("""
        SELECT avg(loss_nats::DOUBLE) AS mean FROM tokens WHERE unscored IS NULL
        GROUP BY document ORDER BY document""").to_numpy(float)[:, 0]
    return float(skewness(means)) if len(means) else 0.0


def why_not(
    check: Check, metric: Metric, sums: Floats, measured: Measurement, look: Look, baseline: float | None
) -> str | None:
    """Return the reason why a look may not decide a check although its interval is clear; None where it may decide.

    Args:
        check: the check.
        metric: its metric.
        sums: float64 [G, 1 or 2, terms + 1], from `AuditedRun.sums`.
        measured: the estimates from these sums, of `measure_from_sums`.
        look: how much of the text is scored.
        baseline: skewness from `baseline_skew`; None without a baseline.
    """
    scale, passed = held_scale(check, metric), decide(check, measured.held) == "pass"
    distance = scale.limit(check.limit.bound) - measured.held.value
    towards = -math.copysign(1.0, distance) * float(skewness(jackknife(sums, scale)))
    most = most_skewness(look.documents, passed=passed)
    if towards > most:
        what = "change" if check.limit.needs_baseline else "value"
        return (
            f"a few documents carry the {what} (skewness {towards:.2f} towards the limit, at most {most:.2f} with "
            f"{plural(look.documents, 'document')})"
        )
    if check.limit.needs_baseline and check.field is None and baseline is not None and abs(baseline) > most:
        return (
            f"a few documents are unlike the rest under the baseline (skewness of their mean losses {baseline:.2f}, at "
            f"most {most:.2f} with {plural(look.documents, 'document')})"
        )
    if not passed or beyond_doubt(abs(distance), _worst(check, metric, measured), look.documents, look.confidence):
        return None
    needed = documents_to_pass(look.confidence)
    if look.documents < needed:
        return f"a pass needs {needed} documents, so that no kind of document that makes up {RARE:.0%} of all is missed"
    if look.scored < PASS_SHARE * look.planned:
        return f"a pass needs {PASS_SHARE:.0%} of the documents"
    return None


def _worst(check: Check, metric: Metric, measured: Measurement) -> float:
    """Return `Metric.worst` on the scale of the number that the limit applies to."""
    if not check.limit.in_percent or metric.per_nat:
        return metric.worst
    assert measured.baseline is not None
    return 100.0 * metric.worst / abs(measured.baseline.value)
