"""An audit as JUnit XML, against what its common readers accept."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema
from audit_results import HOSTILE, audit_result, audits, check_result, mixed
from hypothesis import given
from junitparser import Failure, JUnitXml

from lossprobe.report.audit.junit import audit_to_junit

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit_common.xsd")))


def read(result, **choices):
    """Return the suite of an audit, once it is known to be valid."""
    data = audit_to_junit(result, **choices)
    SCHEMA.validate(ET.ElementTree(ET.fromstring(data)))
    text = data.decode()
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert len(ET.fromstring(data)) == 1
    return ET.fromstring(data)[0]


def properties(suite):
    return {found.get("name"): found.get("value") for found in suite.iter("property")}


def test_a_parser_of_others_finds_each_check_with_its_outcome():
    (suite,) = JUnitXml.fromstring(audit_to_junit(mixed()))
    assert (suite.name, suite.tests, suite.failures, suite.errors) == ("lossprobe audit", 6, 2, 0)
    assert [(case.classname, case.name) for case in suite] == [
        ("lossprobe.heldout", name) for name in ("no-regression", "late-context", "digits", "wiki", "ece", "tail")
    ]
    outcomes = [[(type(result), result.type, result.message) for result in case.result] for case in suite]
    assert outcomes == [
        [],
        [(Failure, "fail", "late-context rose by 0.0213 nats per token")],
        [(Failure, "inconclusive", "digits may have changed")],
        [],
        [],
        [],
    ]
    assert [case.is_passed for case in suite] == [True, False, False, True, True, True]
    assert {found.name: found.value for found in suite.properties()}["verdict"] == "fail"


def test_the_text_of_a_failure_is_the_verdict_with_its_numbers():
    texts = [failure.text for failure in read(mixed()).iter("failure")]
    assert texts[0] == (
        "fail: late-context: late-context rose by 0.0213 nats per token\n"
        "measured: change of nll (nats per token): context >= 128: +0.0213 [+0.0150, +0.0276], limit ≤ +0.0100, "
        "8,000 tokens"
    )
    assert len(texts) == 2


def test_warnings_pass_and_the_output_says_so():
    lines = read(mixed()).find("system-out").text.splitlines()
    assert "inconclusive (warning): wiki: wiki may have changed" in lines
    assert "fail (warning): ece: ece is 0.031" in lines
    assert "note: documents were shuffled with seed 0" in lines
    assert lines[-1] == mixed().finding


def test_numbers_are_properties_in_full_precision():
    found = properties(read(audit_result(check_result("fail", measured=1 / 3, value=0.1 + 0.2, where="context > 9"))))
    assert found["check.no-regression.measured"] == repr(1 / 3)
    assert found["check.no-regression.value"] == repr(0.1 + 0.2)
    assert found["check.no-regression.measured_low"] == "-0.001"
    assert found["check.no-regression.value_high"] == "1.6"
    assert found["check.no-regression.max_increase"] == "0.01"
    assert found["check.no-regression.slice"] == "context > 9"
    assert found["check.no-regression.line"] == "12"
    assert (found["exit_code"], found["stop_early"], found["confidence"]) == ("10", "false", "0.95")
    assert found["text.heldout.sha256"] == "ab" * 32
    assert "check.no-regression.further_tokens" not in found


def test_what_cannot_be_given_has_no_property():
    found = properties(read(audit_result(check_result(baseline_value=None, measured=float("inf")))))
    assert "check.no-regression.baseline_value" not in found
    assert found["check.no-regression.measured"] == "inf"


def test_the_same_audit_gives_the_same_bytes():
    assert audit_to_junit(mixed()) == audit_to_junit(mixed())
    assert audit_to_junit(mixed()).startswith(b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites>")
    assert read(mixed()).get("timestamp") == "1970-01-01T00:00:00"
    assert read(mixed(), timestamp="2026-05-04T03:02:01").get("timestamp") == "2026-05-04T03:02:01"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_file(name):
    hostile = check_result("fail", id=name, data=name, where=name, reason=name)
    suite = read(audit_result(hostile, model=name, file=name, notes=[name]))
    case = suite.find("testcase")
    assert len(suite.findall("testcase")) == 1
    assert len(suite.findall("properties")) == 1
    assert len(case) == 1
    for sign, shown in (("\x1b", "\\x1b"), ("\ud800", "\\ud800"), ("\udc80", "\\x80"), ("\ufffe", "\\ufffe")):
        if sign in name:
            assert shown in case.get("name")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b' timestamp="1970-01-01T00:00:00"', b""),
        (b'time="0"', b'time=""'),
        (b"<system-err />", b""),
        (b"<testcase ", b'<testcase line="3" '),
        (b"<failure ", b"<warning />\n<failure "),
    ],
)
def test_the_schema_refuses(old, new):
    data = audit_to_junit(mixed())
    assert old in data
    assert not SCHEMA.is_valid(ET.ElementTree(ET.fromstring(data.replace(old, new))))


@given(audits())
def test_any_audit_is_valid(result):
    suite = read(result)
    failing = sum(check.effect in ("fail", "inconclusive") for check in result.checks)
    assert int(suite.get("failures")) == failing == len(list(suite.iter("failure")))
    assert int(suite.get("tests")) == len(result.checks) == len(suite.findall("testcase"))
