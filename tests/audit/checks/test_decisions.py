"""Verdicts: which side of the limit an interval lies on, and how many tokens would bring it off the limit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from lossprobe.audit.checks.decisions import Measurement, conclude, decide, measure_from_sums
from lossprobe.audit.checks.estimates import ScaledEstimate, smooth_estimate
from lossprobe.audit.checks.metrics import METRICS, change_scale, metric_of, value_scale
from lossprobe.audit.settings import Check, Limit

NLL = METRICS["nll"]
SCALE = change_scale(NLL, percent=False)  # in nats, as of a value, and not cut at 0


def check_of(kind, value, metric="nll", **choices):
    return Check("id", "text", metric, Limit(kind, value), **choices)


def estimate(value, half, scale=SCALE):
    return ScaledEstimate(scale, value, (half, half), 2.0, 1000, 50)


@pytest.mark.parametrize(
    ("kind", "limit", "value", "half", "verdict"),
    [
        ("max", 3.0, 2.5, 0.4, "pass"),
        ("max", 3.0, 2.5, 0.5, "pass"),  # at the limit is within it
        ("max", 3.0, 2.5, 0.6, "inconclusive"),
        ("max", 3.0, 3.5, 0.6, "inconclusive"),
        ("max", 3.0, 3.5, 0.5, "inconclusive"),  # its low end is at the limit, which may be the truth
        ("max", 3.0, 3.5, 0.4, "fail"),
        ("min", 3.0, 3.5, 0.5, "pass"),
        ("min", 3.0, 2.5, 0.6, "inconclusive"),
        ("min", 3.0, 2.5, 0.4, "fail"),
        ("max_increase", 0.25, 0.0, 0.0, "pass"),
        ("max_increase", 0.0, 0.0, 0.0, "pass"),
        ("max_increase", 0.25, 0.5, 0.125, "fail"),
        ("max_decrease", 0.25, -0.125, 0.125, "pass"),
        ("max_decrease", 0.25, -0.25, 0.125, "inconclusive"),
        ("max_decrease", 0.25, -0.5, 0.125, "fail"),
        ("max_decrease", 0.25, 0.5, 0.125, "pass"),
        ("max", 3.0, 2.5, math.nan, "inconclusive"),
        ("max", 3.0, math.nan, math.nan, "inconclusive"),
        ("max", 3.0, 2.5, math.inf, "inconclusive"),
    ],
)
def test_the_interval_decides(kind, limit, value, half, verdict):
    assert decide(check_of(kind, limit), estimate(value, half)) == verdict


@pytest.mark.parametrize(
    ("metric", "value", "half", "interval"),
    [
        ("same_top_share", 0.9999, 0.0022, (0.9977, 1.0)),
        ("accuracy", 0.001, 0.002, (0.0, 0.003)),
        ("mean_kl_nats", 1e-4, 2e-4, (0.0, 3e-4)),
        ("perplexity", 0.01, 0.02, (1.0, math.exp(0.03))),
        ("loss50_minus_loss500", 0.01, 0.02, (-0.01, 0.03)),
    ],
)
def test_an_interval_ends_where_its_number_must(metric, value, half, interval):
    assert estimate(value, half, value_scale(METRICS[metric])).interval == pytest.approx(interval)


def test_the_interval_of_a_change_is_not_cut():
    assert estimate(0.001, 0.002, change_scale(METRICS["accuracy"], percent=False)).interval[0] < 0


@pytest.mark.parametrize(
    ("value", "verdict"), [(2.5, "pass"), (3.0, "pass"), (3.5, "fail"), (math.nan, "inconclusive")]
)
def test_a_point_rule_looks_at_the_estimate_alone(value, verdict):
    for half in (0.0, 9.0, math.nan):
        assert decide(check_of("max", 3.0, rule="point"), estimate(value, half)) == verdict


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.booleans())
def test_mirrored_limits_give_the_same_verdict(value, half, limit, upper):
    kind, other = ("max", "min") if upper else ("min", "max")
    assert decide(check_of(kind, limit), estimate(value, half)) == decide(
        check_of(other, -limit), estimate(-value, half)
    )


@pytest.mark.parametrize(("kind", "beyond"), [("max_increase", 5e-7), ("max_decrease", -5e-7), ("max", 5e-7)])
def test_rounding_breaks_no_limit(kind, beyond):
    check = check_of(kind, 0.0)
    assert decide(check, estimate(beyond, 1e-9)) == "pass"
    assert decide(check, estimate(10 * beyond, 1e-9)) == "fail"


def test_a_share_without_any_such_token_is_not_known_for_certain():
    """No token of 1,000 in 5 documents: fewer than 3.69 in a thousand, by the exact bound."""
    sums = np.tile([0.0, 200.0, 200.0], (5, 1, 1))
    check = check_of("max", 0.001, "share_above", nats=10.0)
    metric = metric_of(check, 0)
    held = measure_from_sums(check, metric, sums, 0.95).held
    assert held.interval[1] == pytest.approx(1 - 0.025 ** (1 / 1000), rel=1e-9)
    assert decide(check, held) == "inconclusive"
    assert measure_from_sums(check, metric, sums, 0.95, copies=None).held.half == (0.0, 0.0)


def sums_of(rng, documents=40, shift=0.02, spread=0.05):
    tokens = rng.integers(50, 400, documents).astype(float)
    old = tokens * 3.0
    new = old + tokens * rng.normal(shift, spread, documents)
    return np.stack([np.stack([side, tokens, tokens], axis=-1) for side in (old, new)], axis=1)


def test_so_many_more_tokens_would_just_decide():
    """Repeat the same documents f times, exactly as the answer says: the interval just leaves the limit."""
    sums = sums_of(np.random.default_rng(1), spread=0.1)
    check = check_of("max_increase", 0.01)
    measured = measure_from_sums(check, NLL, sums, 0.95, None)
    result = conclude(check, NLL, measured, 0.95)
    assert result.verdict == "inconclusive"
    assert result.further_tokens is not None
    held, tokens = measured.held, result.tokens
    factor = (tokens + result.further_tokens) / tokens
    distance = abs(held.value - 0.01)

    def half(times):
        error = held.half[0] / held.quantile / math.sqrt(times)
        return t.ppf(0.975, times * held.clusters - 1) * error

    assert half(factor) <= distance
    assert half(factor - 2 / tokens) > distance
    assert f"about {result.further_tokens:,} more such tokens would decide" in result.reason


def test_an_estimate_on_the_limit_is_never_decided():
    result = conclude(check_of("max", 2.5), NLL, Measurement(*([estimate(2.5, 0.1)] * 3)), 0.95)
    assert (result.verdict, result.further_tokens) == ("inconclusive", None)
    assert "no number of tokens would decide" in result.reason


def test_further_tokens_of_a_perplexity_are_those_of_its_loss():
    sums = sums_of(np.random.default_rng(1), spread=0.1)
    change = 0.01
    nll = check_of("max_increase", change)
    perplexity = check_of("max_increase_pct", 100 * math.expm1(change), "perplexity")
    answers = [
        conclude(check, metric_of(check, 0), measure_from_sums(check, metric_of(check, 0), sums, 0.95, None), 0.95)
        for check in (nll, perplexity)
    ]
    assert answers[0].verdict == answers[1].verdict == "inconclusive"
    assert abs(answers[0].further_tokens - answers[1].further_tokens) <= 1


def test_without_a_baseline_a_change_is_inconclusive_and_the_value_still_shown():
    sums = sums_of(np.random.default_rng(0))[:, 1:]
    check = check_of("max_increase", 0.01)
    result = conclude(check, NLL, measure_from_sums(check, NLL, sums, 0.95, None), 0.95)
    assert (result.verdict, result.measured, result.baseline_value) == ("inconclusive", None, None)
    assert result.value == pytest.approx(3.02, abs=0.03)
    assert "lossprobe baseline update" in result.reason


@pytest.mark.parametrize(
    ("value", "half", "words"),
    [
        (2.5, 0.1, "nll 2.5000 nats per token [2.4000, 2.6000] keeps max (3.0000)"),
        (3.5, 0.1, "nll 3.5000 nats per token [3.4000, 3.6000] breaks max (3.0000)"),
        (3.5, math.nan, "nll 3.5000 nats per token, but no interval"),
        (3.00001, 0.0, "nll 3.00001 nats per token [3.00001, 3.00001] breaks max (3.00000)"),
    ],
)
def test_the_reason_shows_as_many_digits_as_it_takes(value, half, words):
    result = conclude(check_of("max", 3.0), NLL, Measurement(estimate(value, half), None, estimate(value, half)), 0.95)
    assert result.reason.startswith(words)


def test_one_document_has_a_change_but_no_interval_unless_nothing_changed():
    sums = sums_of(np.random.default_rng(0), documents=1)
    check = check_of("max_increase", 0.0)
    measured = measure_from_sums(check, NLL, sums, 0.95, None)
    assert conclude(check, NLL, measured, 0.95).verdict == "inconclusive"
    assert measured.held.interval == (None, None)
    assert conclude(check, NLL, measured.exactly(), 0.95).measured_interval == (0.0, 0.0)


def test_a_wider_quantile_makes_a_wider_interval():
    sums = sums_of(np.random.default_rng(0))
    scale = change_scale(NLL, percent=False)
    narrow, wide = smooth_estimate(sums, scale, 2.0), smooth_estimate(sums, scale, 5.0)
    assert wide.half[0] == pytest.approx(2.5 * narrow.half[0], rel=1e-12)
    assert wide.value == narrow.value
