"""Checks the log of the training run that made a checkpoint: what must not be found in it."""

from __future__ import annotations

import pandas as pd

from lossprobe.analysis.curve.curve import curve, findings_asked_for, steps_of
from lossprobe.analysis.options import ANY
from lossprobe.analysis.stats.interval import NO_INTERVAL
from lossprobe.audit.checks.verdicts import CheckResult
from lossprobe.audit.gate.named import naming
from lossprobe.audit.settings import FINDINGS, AuditSettings, Check, CurveSettings, Limit
from lossprobe.logs.read import read_log
from lossprobe.units import visible

NONE = Limit("max", 0.0)


def check_log(settings: AuditSettings, vocabulary: int) -> tuple[list[CheckResult], list[str]]:
    """Return a check for each diagnosis that an audit file names, and the notes of the log; nothing without a log.

    Args:
        settings: the audit file.
        vocabulary: entries of the checkpoint's vocabulary, where the log does not say.

    Raises:
        UsageError: the log cannot be read.
    """
    asked = settings.curve
    if asked is None or asked.level == "off":
        return [], []
    with naming(settings, "curve", asked):
        log = read_log(asked.log, asked.columns)
    found = curve([log], vocabulary=vocabulary)
    name = visible(found.logs[0].log, 80)
    return [_check(asked, each, name, findings_asked_for(found.table, [each])) for each in asked.fail_on], [
        f"{name}: {note}" for note in found.notes
    ]


def _check(asked: CurveSettings, diagnosis: str, log: str, found: pd.DataFrame) -> CheckResult:
    """Return the verdict on one diagnosis: it must not be found."""
    what = "fault" if diagnosis == ANY else diagnosis
    told = [f"{row['diagnosis']} ({steps_of(row)}): {row['evidence']}" for _, row in found.iterrows()]
    count = float(len(found))
    return CheckResult(
        check=Check(f"curve.{diagnosis}", "curve", FINDINGS, NONE, level=asked.level, rule="point", line=asked.line),
        verdict="fail" if len(found) else "pass",
        unit=FINDINGS, value=count, value_interval=NO_INTERVAL, baseline_value=None,
        measured=count, measured_interval=NO_INTERVAL, measured_unit=FINDINGS,
        tokens=0, clusters=0, further_tokens=None,
        reason=f"{log}: {'; '.join(told) or f'no {what}'}",
    )  # fmt: skip
