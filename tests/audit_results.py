"""Builds audit results for tests without running an audit, and draws random ones with hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from lossprobe.analysis.stats.interval import Interval
from lossprobe.audit.checks.metrics import METRICS
from lossprobe.audit.checks.verdicts import VERDICTS, AuditResult, CheckResult, TextResult
from lossprobe.audit.settings import INCONCLUSIVE, LEVELS, LIMITS, Check, Limit

HOSTILE = [
    "a\x1b[2J\n::error::x", "::error::x", "##[error]x", "]]>", "<img src=x onerror=alert(1)>", "a|b", "\ud800",
    "\udc80", "\ufffe", "\uffff", "😀", "\u202eabc", "\x00", "\x85", "\r\n- x", "`x` @team *b* [l](http://x)", "",
    " ::error::x", "%0A::x,y:z", "漢" * 300,
]  # fmt: skip


def check_result(verdict: str = "pass", **choices) -> CheckResult:
    """Return the result of one check.

    `choices` are fields of `Check`, of `CheckResult`, or of its `Limit` (as kind and limit).
    """
    limit = Limit(choices.pop("kind", "max_increase"), choices.pop("limit", 0.01))
    settings = {name: choices.pop(name) for name in list(choices) if name in Check.__dataclass_fields__}
    check = Check(**{"id": "no-regression", "data": "heldout", "metric": "nll", "limit": limit, "line": 12} | settings)
    found = {
        "unit": "nats per token", "value": 1.5, "value_interval": Interval(1.4, 1.6), "baseline_value": 1.498,
        "measured": 0.002, "measured_interval": Interval(-0.001, 0.005), "measured_unit": "nats per token",
        "tokens": 12345, "clusters": 50, "further_tokens": None, "reason": "the change is 0.002 nats per token",
    }  # fmt: skip
    return CheckResult(check=check, verdict=verdict, **(found | choices))


def text_result(**choices) -> TextResult:
    found = {
        "name": "heldout", "text": "valid.jsonl", "sha256": "ab" * 32, "tokens": 13000, "scored_tokens": 12345,
        "documents": 50, "scored_share": 1.0, "baseline": "main",
    }  # fmt: skip
    return TextResult(**(found | choices))


def audit_result(*checks: CheckResult, **choices) -> AuditResult:
    found = {
        "file": "lossprobe.toml", "model": "ckpt", "model_sha256": "cd" * 32, "confidence": 0.95, "seed": 0,
        "stop_early": False, "texts": [text_result()], "notes": [],
    }  # fmt: skip
    return AuditResult(checks=list(checks), **(found | choices))


def mixed() -> AuditResult:
    """Return an audit with a check of every effect: pass, fail, inconclusive (failing, warned, allowed) and warn."""
    return audit_result(
        check_result(),
        check_result(
            "fail", id="late-context", where="context >= 128", line=18, measured=0.0213,
            measured_interval=Interval(0.0150, 0.0276), tokens=8000,
            reason="late-context rose by 0.0213 nats per token",
        ),
        check_result(
            "inconclusive", id="digits", token_class="digits", inconclusive="fail", line=24, measured=0.009,
            measured_interval=Interval(-0.003, 0.021), tokens=900, further_tokens=40000,
            reason="digits may have changed",
        ),
        check_result(
            "inconclusive", id="wiki", field="source", equals="wiki", line=31, measured=0.009,
            measured_interval=Interval(-0.004, 0.022), tokens=700, further_tokens=50000, reason="wiki may have changed",
        ),
        check_result(
            "fail", id="ece", metric="ece", kind="max", limit=0.02, level="warn", line=38, unit="share", value=0.031,
            value_interval=Interval(0.025, 0.037), baseline_value=None, measured=0.031,
            measured_interval=Interval(0.025, 0.037),
            measured_unit="share", reason="ece is 0.031",
        ),
        check_result(
            "inconclusive", id="tail", metric="quantile", quantile=0.99, kind="max_increase_pct", limit=2.0,
            inconclusive="pass", line=45, measured=1.5, measured_interval=Interval(0.5, 2.5), measured_unit="%",
            reason="tail may have changed",
        ),
        notes=["documents were shuffled with seed 0"],
    )  # fmt: skip


NUMBERS = st.none() | st.floats() | st.floats(-10, 10)
WORDS = st.text(max_size=12) | st.sampled_from(HOSTILE)


@st.composite
def audits(draw) -> AuditResult:
    """Draw any audit result, with hostile names and numbers."""
    checks = [
        check_result(
            draw(st.sampled_from(VERDICTS)), id=draw(WORDS), data=draw(WORDS),
            metric=draw(st.sampled_from(tuple(METRICS))),
            kind=draw(st.sampled_from(LIMITS)), limit=draw(st.floats()), where=draw(WORDS), field=draw(WORDS),
            equals=draw(WORDS), level=draw(st.sampled_from(LEVELS[1:])),
            inconclusive=draw(st.sampled_from(INCONCLUSIVE)), line=draw(st.integers(0, 99)), unit=draw(WORDS),
            value=draw(NUMBERS), value_interval=Interval(draw(NUMBERS), draw(NUMBERS)), baseline_value=draw(NUMBERS),
            measured=draw(NUMBERS), measured_interval=Interval(draw(NUMBERS), draw(NUMBERS)), measured_unit=draw(WORDS),
            further_tokens=draw(st.none() | st.integers(0, 10**18)), reason=draw(WORDS),
        )
        for _ in range(draw(st.integers(0, 3)))
    ]  # fmt: skip
    texts = [text_result(name=draw(WORDS), text=draw(WORDS), baseline=draw(st.none() | WORDS))]
    return audit_result(
        *checks, file=draw(WORDS), model=draw(WORDS), model_sha256=draw(WORDS), stop_early=draw(st.booleans()),
        texts=texts, notes=[draw(WORDS)],
    )  # fmt: skip
