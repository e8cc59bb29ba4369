"""Examines a training log: which faults it shows, and the evidence for each."""

from __future__ import annotations

from lossprobe.analysis.curve import (
    epochs,
    explosion,
    non_finite,
    oscillation,
    rates,
    restarts,
    scales,
    spikes,
    start,
    trend,
    validation,
)
from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.seen import Rule, Seen
from lossprobe.logs.log import Log

RULES: tuple[Rule, ...] = (
    non_finite.not_finite,
    non_finite.nothing_trained,
    non_finite.overflow,
    start.uniform,
    explosion.explosion,
    rates.too_high,
    trend.not_learning,
    rates.too_low,
    validation.over_fitting,
    scales.accumulation_scale,
    epochs.memorising,
    restarts.restart_jump,
    spikes.spikes,
    oscillation.oscillation,
    start.wrong_start,
    scales.measured_differently,
    scales.smoothed_loss,
    trend.plateau,
)
# What is looked for where a loss is negative: no mean of -log p, so that its level says nothing.
OF_ANY_LOSS = (non_finite.not_finite, non_finite.nothing_trained, non_finite.overflow)
# What is not told beside a diagnosis that explains it.
EXPLAINED = {
    "not-finite": {"plateau", "learning-rate-too-low"},
    "nothing-trained": {"not-learning", "plateau", "explosion", "uniform", "memorising", "learning-rate-too-high"},
    "uniform": {"not-learning", "plateau", "spikes", "oscillation", "memorising"},
    "explosion": {"not-learning", "plateau", "over-fitting", "learning-rate-too-low", "oscillation", "memorising"},
    "not-learning": {"plateau", "learning-rate-too-low"},
    "learning-rate-too-high": {"learning-rate-too-low"},
    "accumulation-scale": {
        "wrong-start",
        "measured-differently",
        "learning-rate-too-high",
        "learning-rate-too-low",
        "not-learning",
    },
    "smoothed-loss": {"measured-differently"},
    "memorising": {"oscillation", "plateau"},
    "oscillation": {"spikes"},
}


def examine(log: Log, vocabulary: int | None = None) -> tuple[Finding, ...]:
    """Return what a log shows, the gravest first; nothing where it is healthy.

    Args:
        log: the log.
        vocabulary: entries of the model's vocabulary, which ln V needs; None takes what the log says.
    """
    seen = Seen(log, log.vocabulary if vocabulary is None else vocabulary)
    rules = RULES if seen.is_cross_entropy else OF_ANY_LOSS
    found = [finding for rule in rules for finding in rule(seen)]
    explained = {name for finding in found for name in EXPLAINED.get(finding.diagnosis.name, ())}
    order = list(DIAGNOSES)
    told = [finding for finding in found if finding.diagnosis.name not in explained]
    return tuple(sorted(told, key=lambda finding: order.index(finding.diagnosis.name)))
