"""The verdict on a check: pass, fail or inconclusive.

A check passes if the whole interval lies within the limit, fails if the whole interval lies beyond it, and is
inconclusive otherwise. With a two-sided 95 % interval, each of the first two verdicts is wrong with a probability of at
most 2.5 %. A number up to a millionth beyond the limit counts as within it, because scoring the same model in other
batches can move it by as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossprobe.analysis.stats.interval import NO_INTERVAL
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.audit.checks.estimates import (
    ScaledEstimate,
    ece_estimate,
    quantile_estimate,
    smooth_estimate,
    unvaried_half,
)
from lossprobe.audit.checks.metrics import Metric, Scale, change_scale, value_scale
from lossprobe.audit.checks.pairing import AuditedRun
from lossprobe.audit.checks.verdicts import CheckResult, slice_name
from lossprobe.audit.settings import Check
from lossprobe.units import format_count, format_together

ROUNDING = 1e-6  # in the unit of the metric
NO_BASELINE = "no baseline to measure a change from; make one with lossprobe baseline update"


@dataclass(frozen=True)
class Measurement:
    """The estimates of a check.

    Attributes:
        value: the metric of the model.
        baseline: the metric of the baseline; None without one.
        held: the number that the limit applies to: `value` again, or the change from the baseline.
    """

    value: ScaledEstimate
    baseline: ScaledEstimate | None
    held: ScaledEstimate

    def exactly(self) -> Measurement:
        """Return the measurement with a change of exactly 0, for a model with the same outputs as the baseline."""
        if self.baseline is None or not self.held.tokens:
            return self
        return replace(self, held=replace(self.held, value=0.0, half=(0.0, 0.0)))


def held_scale(check: Check, metric: Metric) -> Scale:
    """Return the scale of the number that the limit of a check applies to."""
    if check.limit.needs_baseline:
        return change_scale(metric, percent=check.limit.in_percent)
    return value_scale(metric)


def measure_from_sums(
    check: Check,
    metric: Metric,
    sums: Floats,
    confidence: float,
    quantile: float | None = None,
    *,
    copies: float | None = 1.0,
) -> Measurement:
    """Return the estimates of a check of a smooth metric.

    Args:
        check: the check.
        metric: its metric.
        sums: float64 [G, 1 or 2, terms + 1], from `AuditedRun.sums`.
        confidence: confidence level of the interval.
        quantile: half width of the interval in standard errors; None for the quantile of Student's t.
        copies: how often a token's text is there on average, for the interval of a share that does not vary; None for
            a part of the text, where it gets none.
    """
    wide = float(t_quantile(len(sums), confidence)) if quantile is None else quantile
    of_value = value_scale(metric)
    least = 0.0
    if metric.share and copies is not None and sums[:, -1, -1].any():
        least = unvaried_half(sums[:, -1, -1].sum() / copies, confidence)
    value = smooth_estimate(sums[:, -1:], of_value, wide, least)
    if sums.shape[1] == 1:
        return Measurement(value, None, value)
    baseline = smooth_estimate(sums[:, :1], of_value, wide, least)
    return Measurement(value, baseline, smooth_estimate(sums, held_scale(check, metric), wide, least))


def measure_from_rows(check: Check, metric: Metric, scored: AuditedRun, confidence: float) -> Measurement:
    """Return the estimates of a check of a metric that is not smooth: `ece` or `quantile`."""
    rows = [scored.rows(check, of_baseline=side) for side in scored.sides(check)]

    def estimate(of: list[str], scale: Scale) -> ScaledEstimate:
        if check.quantile is not None:
            return quantile_estimate(scored, of, check.quantile, scale, confidence)
        return ece_estimate(scored, of, scale, confidence)

    value = estimate(rows[-1:], value_scale(metric))
    if len(rows) == 1:
        return Measurement(value, None, value)
    return Measurement(value, estimate(rows[:1], value_scale(metric)), estimate(rows, held_scale(check, metric)))


def decide(check: Check, held: ScaledEstimate) -> str:
    """Return the verdict on an estimate of the number that the limit applies to: "pass", "fail" or "inconclusive"."""
    low, high = held.interval if check.rule == "interval" else (held.shown, held.shown)
    if low is None or high is None:
        return "inconclusive"
    spare = 100.0 * ROUNDING if check.limit.in_percent else ROUNDING
    if check.limit.is_floor:
        kept, broken = low >= check.limit.bound - spare, high < check.limit.bound - spare
    else:
        kept, broken = high <= check.limit.bound + spare, low > check.limit.bound + spare
    return "pass" if kept else "fail" if broken else "inconclusive"


def conclude(check: Check, metric: Metric, measured: Measurement, confidence: float) -> CheckResult:
    """Return the result of a check from its estimates.

    Args:
        check: the check.
        metric: its metric.
        measured: from `measure_from_sums` or `measure_from_rows`.
        confidence: confidence level, for the number of further tokens that would decide.
    """
    held, missing = measured.held, check.limit.needs_baseline and measured.baseline is None
    verdict = "inconclusive" if missing else decide(check, held)
    further = None
    if verdict == "inconclusive" and not missing:
        further = held.further_tokens(check.limit.bound, confidence)
    return CheckResult(
        check=check,
        verdict=verdict,
        unit=metric.unit,
        value=measured.value.shown,
        value_interval=measured.value.interval,
        baseline_value=None if measured.baseline is None else measured.baseline.shown,
        measured=None if missing else held.shown,
        measured_interval=NO_INTERVAL if missing else held.interval,
        measured_unit=metric.unit if missing else held.scale.unit,
        tokens=held.tokens,
        clusters=held.clusters,
        further_tokens=further,
        reason=NO_BASELINE if missing else _reason(check, held, verdict, further),
    )


def _reason(check: Check, held: ScaledEstimate, verdict: str, further: int | None) -> str:
    """Return the reason of a verdict in one line, with the numbers."""
    if held.shown is None:
        return (
            f"no token in {slice_name(check) or 'the text'} to measure" if not held.tokens else "no number can be given"
        )
    change, percent = check.limit.needs_baseline, held.scale.unit == "%"
    value, low, high, bound = format_together(
        [held.shown, *held.interval, check.limit.bound],
        decimals=2 if percent else 4, signed=change, suffix="%" if percent else "",
    )  # fmt: skip
    what = f"{'change' if change else check.metric} {value}{'' if percent else f' {held.scale.unit}'}"
    outcome = f"{'keeps' if verdict == 'pass' else 'breaks'} {check.limit.kind} ({bound})"
    if check.rule == "point":
        return f"{what} {outcome}; rule point: the interval is not used"
    if held.interval.low is None:
        return f"{what}, but no interval: it needs such tokens in two documents, or in two blocks of one document"
    if verdict != "inconclusive":
        return f"{what} [{low}, {high}] {outcome}"
    more = "no number of tokens" if further is None else f"about {format_count(further)} more such tokens"
    contains = f"{what} [{low}, {high}] contains the limit, {check.limit.kind} ({bound})"
    return f"{contains}: {more} would decide if the estimate holds"
