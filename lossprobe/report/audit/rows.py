"""Formats the checks of an audit as text, in the same way for every report that people read."""

from __future__ import annotations

from typing import NamedTuple

from lossprobe.audit.checks.verdicts import AuditResult, CheckResult, slice_name
from lossprobe.audit.settings import FINDINGS
from lossprobe.units import format_count, format_together, visible

# Longer names and reasons are cut, so that no name from a file can fill a report.
NAME_LENGTH = 200
REASON_LENGTH = 1000
# Effects of checks, worst first.
SEVERITY = ("fail", "inconclusive", "warn", "pass")
REMARKS = {"warn": "warning", "pass": "allowed"}


class Row(NamedTuple):
    """The cells of one check in a table, safe for a terminal.

    `measured`, `interval` and `limit` have the same number of decimals, so that they can be compared. The limit is
    marked "(point)" where the estimate decides and not the interval.
    """

    check: str
    verdict: str
    metric: str
    measured: str
    interval: str
    limit: str
    tokens: str


def headers(result: AuditResult) -> Row:
    """Return the headers of the columns."""
    return Row("check", "verdict", "metric", "measured", f"{result.confidence * 100:.6g}% interval", "limit", "tokens")


def row(result: CheckResult) -> Row:
    """Return the cells of one check."""
    check = result.check
    percent, counted = result.measured_unit == "%", check.metric == FINDINGS
    measured, low, high, limit = format_together(
        [result.measured, *result.measured_interval, check.limit.bound],
        decimals=0 if counted else 2 if percent else 4,
        signed=check.limit.needs_baseline,
        suffix="%" if percent else "",
    )
    return Row(
        name(check.id),
        verdict(result),
        metric(result),
        measured,
        "n/a" if low == high == "n/a" else f"[{low}, {high}]",
        f"{'≥' if check.limit.is_floor else '≤'} {limit}{' (point)' if check.rule == 'point' and not counted else ''}",
        format_count(result.tokens),
    )


def in_one_line(result: CheckResult) -> str:
    """Return the cells of one check as a phrase: metric, number, interval, limit and tokens."""
    cells = row(result)
    return f"{cells.metric}: {cells.measured} {cells.interval}, limit {cells.limit}, {cells.tokens} tokens"


def verdict(result: CheckResult) -> str:
    """Return the verdict; where it does not count in the audit with a remark: "fail (warning)"."""
    if result.verdict == "pass" or result.effect == result.verdict:
        return result.verdict
    return f"{result.verdict} ({REMARKS[result.effect]})"


def metric(result: CheckResult) -> str:
    """Return what was measured: "change of nll (nats per token): context >= 128"."""
    check = result.check
    words = check.metric
    if check.nats is not None:
        words += f" {check.nats:g} nats"
    if check.quantile is not None:
        words += f" {check.quantile:g}"
    if check.limit.needs_baseline:
        words = f"change of {words}"
    if result.measured_unit not in ("", "%", check.metric):
        words += f" ({result.measured_unit})"
    part = slice_name(check)
    return name(f"{words}: {part}" if part else words)


def reasons(result: AuditResult) -> list[tuple[str, str, str]]:
    """Return verdict, id and reason of each check whose verdict is not "pass", in the order of the file."""
    return [
        (verdict(check), name(check.check.id), visible(check.reason, REASON_LENGTH))
        for check in result.checks
        if check.verdict != "pass"
    ]


def severity(result: CheckResult) -> int:
    """Return the rank of a check's effect: 0 for "fail", up to 3 for "pass"."""
    return SEVERITY.index(result.effect)


def name(text: str) -> str:
    """Return a name from a file, escaped and cut to `NAME_LENGTH`."""
    return visible(text, NAME_LENGTH)
