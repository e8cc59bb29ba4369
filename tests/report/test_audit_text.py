"""An audit on the terminal."""

import io
import re

import pytest
from audit_results import HOSTILE, audit_result, audits, check_result, mixed
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lossprobe.analysis.stats.interval import Interval
from lossprobe.report.audit.text import audit_to_terminal

# What makes the runner of a GitHub job obey a line.
COMMAND = re.compile(r"^\s*::|##\[|##vso\[", re.MULTILINE)


def cells(text, check):
    """Return the cells of a check's row."""
    line = next(line for line in text.splitlines() if line.startswith(check))
    return re.split(r"\s{2,}", line)


def test_every_verdict_is_in_words_and_the_overall_line_is_last():
    text = audit_to_terminal(mixed(), 160)
    lines = text.splitlines()
    assert lines[0] == "audit: ckpt by lossprobe.toml"
    assert cells(text, "check") == ["check", "verdict", "metric", "measured", "95% interval", "limit", "tokens"]
    assert [cells(text, check.check.id)[1] for check in mixed().checks] == [
        "pass", "fail", "inconclusive", "inconclusive (warning)", "fail (warning)", "inconclusive (allowed)",
    ]  # fmt: skip
    assert lines[-1] == mixed().finding == "fail: 6 checks (1 pass, 2 fail, 3 inconclusive), 2 warnings"
    assert lines[-8:-1] == [
        "fail: late-context: late-context rose by 0.0213 nats per token",
        "inconclusive: digits: digits may have changed",
        "inconclusive (warning): wiki: wiki may have changed",
        "fail (warning): ece: ece is 0.031",
        "inconclusive (allowed): tail: tail may have changed",
        "note: documents were shuffled with seed 0",
        "",
    ]


@pytest.mark.parametrize(
    ("kind", "limit", "unit", "shown"),
    [
        ("max", 0.01, "nats per token", ["0.0020", "[-0.0010, 0.0050]", "≤ 0.0100"]),
        ("min", 0.01, "nats per token", ["0.0020", "[-0.0010, 0.0050]", "≥ 0.0100"]),
        ("max_increase", 0.01, "nats per token", ["+0.0020", "[-0.0010, +0.0050]", "≤ +0.0100"]),
        ("max_decrease", 0.01, "nats per token", ["+0.0020", "[-0.0010, +0.0050]", "≥ -0.0100"]),
        ("max_increase_pct", 0.01, "%", ["+0.002%", "[-0.001%, +0.005%]", "≤ +0.010%"]),
        ("max_decrease_pct", 0.01, "%", ["+0.002%", "[-0.001%, +0.005%]", "≥ -0.010%"]),
    ],
)
def test_a_limit_reads_in_the_direction_it_has(kind, limit, unit, shown):
    text = audit_to_terminal(audit_result(check_result(kind=kind, limit=limit, measured_unit=unit)), 160)
    assert cells(text, "no-regression")[3:6] == shown


def test_an_interval_that_misses_the_limit_by_little_is_seen_to():
    near = check_result(measured=0.005, measured_interval=Interval(0.0, 0.00999999))
    assert cells(audit_to_terminal(audit_result(near), 160), "no-regression")[3:6] == [
        "+0.00500000", "[0.00000000, +0.00999999]", "≤ +0.01000000",
    ]  # fmt: skip


def test_a_limit_on_the_estimate_says_so():
    text = audit_to_terminal(audit_result(check_result(rule="point", measured_interval=Interval(-0.001, 0.02))), 160)
    assert cells(text, "no-regression")[4:6] == ["[-0.0010, +0.0200]", "≤ +0.0100 (point)"]


def test_what_cannot_be_given_is_not_zero():
    result = audit_result(check_result("inconclusive", measured=None, measured_interval=Interval(None, None), tokens=0))
    assert cells(audit_to_terminal(result, 160), "no-regression")[3:] == ["n/a", "n/a", "≤ +0.0100", "0"]
    half = audit_result(check_result(measured_interval=Interval(None, 0.005)))
    assert cells(audit_to_terminal(half, 160), "no-regression")[4] == "[n/a, +0.0050]"


def test_metrics_say_their_number_their_unit_and_their_tokens():
    text = audit_to_terminal(
        audit_result(
            check_result(
                id="a", metric="share_above", nats=10.0, kind="max", measured_unit="share", where="context > 9"
            ),
            check_result(id="b", metric="quantile", quantile=0.99, field="lang", equals="de", measured_unit="%"),
            check_result(id="c", metric="perplexity", measured_unit="perplexity"),
        ),
        160,
    )
    assert [cells(text, name)[2] for name in ("a ", "b ", "c ")] == [
        "share_above 10 nats (share): context > 9",
        "change of quantile 0.99: lang = de",
        "change of perplexity",
    ]


def test_a_table_is_as_wide_as_it_needs_and_fits_an_ordinary_terminal():
    wide = audit_to_terminal(mixed(), 500)
    assert wide == audit_to_terminal(mixed(), 140)
    needed = max(map(cell_len, wide.splitlines()))
    assert wide == audit_to_terminal(mixed(), needed)
    narrow = audit_to_terminal(mixed(), 80)
    assert narrow != wide
    assert max(map(cell_len, narrow.splitlines())) <= 80
    assert "\n  change of nll (nats per token): context >= 128\n" in narrow
    for number in ("+0.0213", "[+0.0150, +0.0276]", "≤ +0.0100", "8,000"):
        assert number in audit_to_terminal(mixed(), 20), "numbers are never cut"


def long_reason():
    return audit_result(check_result("fail", reason="0123456789 " * 12), notes=["a note of words " * 9])


def test_lines_below_the_table_are_wrapped_for_a_terminal():
    lines = audit_to_terminal(long_reason(), 80).splitlines()
    assert max(map(cell_len, lines)) <= 80
    reason = lines.index(next(line for line in lines if line.startswith("fail: no-regression: ")))
    assert " ".join(lines[reason : reason + 2]).count("0123456789") == 12, "no word is lost or broken"


class Output(io.StringIO):
    """Standard output that is a terminal, or none."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_in_a_log_each_of_them_is_one_line(terminal, monkeypatch):
    monkeypatch.setattr("sys.stdout", Output(terminal))
    monkeypatch.setenv("COLUMNS", "80")
    longest = max(map(cell_len, audit_to_terminal(long_reason()).splitlines()))
    assert longest <= 80 if terminal else longest > 130


def test_numbers_stand_under_each_other():
    rows = [line for line in audit_to_terminal(mixed(), 160).splitlines() if "[" in line]
    assert len(rows) == 6
    assert len({len(row) for row in rows}) == 1, "tokens end together"
    assert len({row.index("[") for row in rows}) == 1


def test_no_check_is_left_out_of_a_long_table():
    text = audit_to_terminal(audit_result(*[check_result(id=f"check-{number}") for number in range(100)]), 160)
    assert len(re.findall("^check-", text, re.MULTILINE)) == 100


def test_an_audit_without_checks_is_short():
    assert audit_to_terminal(audit_result(), 80) == "audit: ckpt by lossprobe.toml\n\npass: 0 checks\n"


@pytest.mark.parametrize("width", [160, 40])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_can_steer_a_terminal_or_a_job(name, width):
    hostile = check_result("fail", id=name, where=name, reason=name, measured_unit=name)
    text = audit_to_terminal(audit_result(hostile, model=name, file=name, notes=[name]), width)
    assert not COMMAND.search(text)
    assert all(character.isprintable() or character == "\n" for character in text)
    text.encode()


@given(audits(), st.integers(1, 200))
def test_any_audit_prints(result, width):
    text = audit_to_terminal(result, width)
    assert not COMMAND.search(text)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert text.splitlines()[-1] == result.finding
    text.encode()
