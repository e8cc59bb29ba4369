"""Every rule that reads the results of views as a term."""

from __future__ import annotations

from lossprobe.analysis.findings.catalogue import FINDING_RULES
from lossprobe.analysis.findings.rule import FindingRule
from lossprobe.terms.term import Term


def _term(rule: FindingRule) -> Term:
    side = "below" if rule.below else "above"
    return Term(
        rule.id, f"{rule.title[0].upper()}{rule.title[1:]} ({rule.severity}).", "finding",
        formula=f"{rule.number[0].upper()}{rule.number[1:]}: {side} {rule.threshold:g}, its whole interval included.",
        unit=rule.unit, how_to_read=rule.why, remedy=rule.remedy, command=_command(rule),
    )  # fmt: skip


def _command(rule: FindingRule) -> str:
    return "lossprobe findings" if rule.view == "findings" else f"lossprobe {rule.view}"


TERMS = tuple(map(_term, FINDING_RULES.values()))
