"""Whether an early look may decide a check whose interval is clear; see `analysis.stopping` for the rule."""

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
    """A look at a part of a text.

    Attributes:
        documents: with tokens of the check's slice, so far.
        scored, planned: documents so far, and of the whole text.
        confidence: of the audit.
    """

    documents: int
    scored: int
    planned: int
    confidence: float


def baseline_skew(baseline: Run) -> float:
    """Return the skewness of the documents' mean losses under a baseline, over the whole text; 0 without a loss."""
    means = baseline.query("""
        SELECT avg(loss_nats::DOUBLE) AS mean FROM tokens WHERE unscored IS NULL
        GROUP BY document ORDER BY document""").to_numpy(float)[:, 0]
    return float(skewness(means)) if len(means) else 0.0


def why_not(
    check: Check, metric: Metric, sums: Floats, measured: Measurement, look: Look, baseline: float | None
) -> str | None:
    """Return why a look may not decide although its interval does, with the numbers; None where it may.

    Args:
        check: the check.
        metric: its metric.
        sums: what was measured, float64 [G, 1 or 2, terms + 1].
        measured: from `measure_from_sums`, of these.
        look: how much of the text was looked at.
        baseline: from `baseline_skew`; None without a baseline.
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
        return f"a pass takes {needed} documents, so that no kind that makes up {RARE:.0%} of all is missed"
    if look.scored < PASS_SHARE * look.planned:
        return f"a pass takes {PASS_SHARE:.0%} of the documents"
    return None


def _worst(check: Check, metric: Metric, measured: Measurement) -> float:
    """Return the most by which a document can be worse, on the scale of what the limit is held against."""
    if not check.limit.in_percent or metric.per_nat:
        return metric.worst
    assert measured.baseline is not None
    return 100.0 * metric.worst / abs(measured.baseline.value)
