"""Writes an audit as JUnit XML, which CI systems show as test results.

JUnit XML has no single standard. The file written here is valid under the schema of Apache Ant's task (JUnit.xsd of
Windy Road), the schema of Jenkins' xUnit plugin, and the common format described by Testmo. Numbers are properties of
the suite, and warnings are output of the suite, because Ant's schema allows neither inside a test case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree as ET

from lossprobe.audit.checks.verdicts import AuditResult, CheckResult, slice_name
from lossprobe.report.audit.rows import in_one_line, reasons
from lossprobe.units import visible

# Ant's schema requires a time. It is fixed, so that the same audit gives the same bytes.
NO_TIME = "1970-01-01T00:00:00"
RESULTS = (
    "value", "baseline_value", "measured", "measured_unit", "tokens", "clusters", "further_tokens",
)  # fmt: skip


def audit_to_junit(result: AuditResult, timestamp: str = NO_TIME) -> bytes:
    """Return one test suite with one test case per check, as UTF-8.

    A check that fails the audit is a failure of type "fail"; one that must not be inconclusive and is, a failure of
    type "inconclusive". A check that only warns passes, and the output of the suite has its reason. Characters that XML
    or a terminal cannot show are escaped.

    Args:
        result: the audit.
        timestamp: when the audit began, as YYYY-MM-DDThh:mm:ss without a time zone; the default is a fixed time.
    """
    failing = [check for check in result.checks if _fails(check)]
    root = ET.Element("testsuites")
    suite = ET.SubElement(
        root, "testsuite", name="lossprobe audit", package="lossprobe", id="0", timestamp=timestamp,
        hostname="localhost", tests=str(len(result.checks)), failures=str(len(failing)), errors="0", time="0",
    )  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(result):
        if value is not None:
            ET.SubElement(properties, "property", name=visible(key), value=_text(value))
    for check in result.checks:
        _case(suite, check)
    lines = [f"{verdict}: {name}: {reason}" for verdict, name, reason in reasons(result)]
    lines += [f"note: {visible(note)}" for note in result.notes]
    ET.SubElement(suite, "system-out").text = "\n".join([*lines, visible(result.finding)])
    ET.SubElement(suite, "system-err")
    ET.indent(root, " ")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _fails(result: CheckResult) -> bool:
    return result.effect in ("fail", "inconclusive")


def _case(suite: ET.Element, result: CheckResult) -> None:
    check = result.check
    case = ET.SubElement(
        suite, "testcase", name=visible(check.id), classname=f"lossprobe.{visible(check.data)}", time="0"
    )
    if _fails(result):
        failure = ET.SubElement(case, "failure", type=result.verdict, message=visible(result.reason))
        failure.text = (
            f"{result.verdict}: {visible(check.id)}: {visible(result.reason)}\nmeasured: {in_one_line(result)}"
        )


def _properties(result: AuditResult) -> Iterable[tuple[str, Any]]:
    """Yield the name and value of each property; `text.NAME.` begins those of a text, `check.ID.` those of a check."""
    for key in ("verdict", "exit_code", "file", "model", "model_sha256", "confidence", "seed", "stop_early"):
        yield key, getattr(result, key)
    for text in result.texts:
        for field in dataclasses.fields(text):
            if field.name != "name":
                yield f"text.{text.name}.{field.name}", getattr(text, field.name)
    for found in result.checks:
        check = found.check
        prefix = f"check.{check.id}."
        yield f"{prefix}verdict", found.verdict
        yield f"{prefix}effect", found.effect
        yield f"{prefix}metric", check.metric
        yield f"{prefix}slice", slice_name(check) or None
        yield f"{prefix}{check.limit.kind}", check.limit.value
        for key in RESULTS:
            yield prefix + key, getattr(found, key)
        for key in ("value", "measured"):
            low, high = getattr(found, f"{key}_interval")
            yield f"{prefix}{key}_low", low
            yield f"{prefix}{key}_high", high
        yield f"{prefix}line", check.line or None


def _text(value: Any) -> str:
    """Return the value of a property as text: numbers in full precision, booleans as "true" and "false"."""
    return str(value).lower() if isinstance(value, bool) else visible(str(value))
