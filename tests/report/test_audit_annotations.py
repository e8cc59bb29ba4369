"""An audit as annotations of a GitHub job."""

import re

import pytest
from audit_results import HOSTILE, audit_result, audits, check_result, mixed
from hypothesis import given

from lossprobe.report.audit.annotations import MOST, audit_annotations
from lossprobe.units import visible


def read(line):
    """Return level, properties and message of a command, as the runner reads them."""
    level, properties, message = re.fullmatch(r"::(error|warning) ([^:]*)::(.*)", line).groups()
    pairs = dict(pair.split("=", 1) for pair in properties.split(","))
    return level, {key: decoded(value, ":,") for key, value in pairs.items()}, decoded(message, "")


def decoded(text, more):
    for sign in f"\r\n{more}":
        text = text.replace(f"%{ord(sign):02X}", sign)
    assert not re.search("%(?!25)", text)
    return text.replace("%25", "%")


def test_errors_and_warnings_point_at_their_lines_worst_first():
    assert audit_annotations(mixed()) == [
        "::error file=lossprobe.toml,line=18,title=lossprobe late-context::fail: "
        "late-context rose by 0.0213 nats per token",
        "::error file=lossprobe.toml,line=24,title=lossprobe digits::inconclusive: digits may have changed",
        "::warning file=lossprobe.toml,line=31,title=lossprobe wiki::inconclusive (warning): wiki may have changed",
        "::warning file=lossprobe.toml,line=38,title=lossprobe ece::fail (warning): ece is 0.031",
    ]


def test_what_passes_is_not_marked():
    assert audit_annotations(audit_result(check_result(), check_result("inconclusive", inconclusive="pass"))) == []


def test_no_line_is_named_where_none_is_known():
    assert audit_annotations(audit_result(check_result("fail", line=0, reason="r"))) == [
        "::error file=lossprobe.toml,title=lossprobe no-regression::fail: r"
    ]


def test_at_most_ten_and_the_last_says_how_many_more():
    warned = [check_result("fail", level="warn", id=f"warn-{number}") for number in range(8)]
    failing = [check_result("fail", id=f"fail-{number}") for number in range(4)]
    lines = audit_annotations(audit_result(*warned, *failing))
    assert [line[:6] for line in lines] == ["::erro"] * 4 + ["::warn"] * 6
    assert "fail-0" in lines[0]
    assert lines[-1] == (
        "::warning file=lossprobe.toml,title=lossprobe audit::3 more checks did not pass; the report has all of them"
    )
    assert audit_annotations(audit_result(*[check_result("fail")] * 30))[-1].startswith("::error ")
    assert "21 more checks" in audit_annotations(audit_result(*[check_result("fail")] * 30))[-1]
    assert all("no-regression" in line for line in audit_annotations(audit_result(*[check_result("fail")] * MOST)))


def test_signs_with_a_meaning_are_encoded():
    line = audit_annotations(audit_result(check_result("fail", id="a:b,c%", reason="5%: a, b"), file="C:x,y"))[0]
    assert line == "::error file=C%3Ax%2Cy,line=12,title=lossprobe a%3Ab%2Cc%25::fail: 5%25: a, b"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_starts_a_command_of_its_own(name):
    (line,) = audit_annotations(audit_result(check_result("fail", id=name, reason=name), file=name))
    assert line.isprintable()
    level, properties, message = read(line)
    assert (level, properties["line"]) == ("error", "12")
    assert properties["file"] == visible(name)
    assert message == f"fail: {visible(name)}"


@given(audits())
def test_any_audit_gives_whole_commands(result):
    lines = audit_annotations(result)
    assert len(lines) == sum(check.effect != "pass" for check in result.checks)
    for line in lines:
        assert line.isprintable()
        read(line)
