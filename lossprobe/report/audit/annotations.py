"""Writes an audit as annotations of GitHub Actions: workflow commands that mark lines of the audit file."""

from __future__ import annotations

from lossprobe.audit.checks.verdicts import AuditResult, CheckResult
from lossprobe.report.audit.rows import REASON_LENGTH, name, severity, verdict
from lossprobe.units import plural, visible

MOST = 10  # GitHub shows at most this many of one step
COMMANDS = {"fail": "error", "inconclusive": "error", "warn": "warning"}
# GitHub's runner decodes these escapes.
IN_MESSAGE = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
IN_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def audit_annotations(result: AuditResult) -> list[str]:
    """Return at most 10 workflow commands, worst first, to be printed one a line on standard output.

    A check that fails the audit (or that must not be inconclusive and is) becomes an error, a check that warns becomes
    a warning, and others are not marked. If there are more than 10, the last command says how many are left.
    """
    marked = sorted((check for check in result.checks if check.effect in COMMANDS), key=severity)
    shown = marked if len(marked) <= MOST else marked[: MOST - 1]
    lines = [_annotation(result.file, check) for check in shown]
    rest = marked[len(shown) :]
    if rest:
        message = f"{plural(len(rest), 'more check')} did not pass; the report has all of them"
        lines.append(_command(COMMANDS[rest[0].effect], result.file, 0, "lossprobe audit", message))
    return lines


def _annotation(file: str, result: CheckResult) -> str:
    check = result.check
    message = f"{verdict(result)}: {visible(result.reason, REASON_LENGTH)}"
    return _command(COMMANDS[result.effect], file, check.line, f"lossprobe {name(check.id)}", message)


def _command(level: str, file: str, line: int, title: str, message: str) -> str:
    place = {"file": visible(file)} | ({"line": str(line)} if line > 0 else {}) | {"title": title}
    properties = ",".join(f"{key}={value.translate(IN_PROPERTY)}" for key, value in place.items())
    return f"::{level} {properties}::{message.translate(IN_MESSAGE)}"
