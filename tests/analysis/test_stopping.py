"""When an early look may decide: skewness, how many documents a pass takes, and how often the rule is wrong."""

import json
import math

import numpy as np
import pytest
from audit.gate.early_checks import as_the_audit_looks
from scipy import stats
from simulations.early_skew import FILE, LOSSES, ORDINARY, SKEWED, draw_skewed, see, too_skewed, wrong

from lossprobe.analysis.stopping import beyond_doubt, documents_to_pass, most_skewness, skewness


def test_skewness_is_that_of_scipy_along_the_last_axis():
    values = np.random.default_rng(0).lognormal(size=(3, 4, 50))
    assert skewness(values) == pytest.approx(stats.skew(values, axis=-1), rel=1e-12)
    assert skewness(-values) == pytest.approx(-stats.skew(values, axis=-1), rel=1e-12)


@pytest.mark.parametrize("values", [[3.7], [0.0, 0.0], np.full(40, 0.1), 1e6 + np.array([0.0, 1e-10, 0.0])])
def test_documents_that_agree_but_for_rounding_are_not_skewed(values):
    assert float(skewness(values)) == 0.0


@pytest.mark.parametrize(("confidence", "risk"), [(0.9, 0.05), (0.95, 0.025), (0.99, 0.005)])
def test_a_pass_takes_as_many_documents_as_hold_one_of_a_kind_in_twenty(confidence, risk):
    needed = documents_to_pass(confidence)
    assert 0.95**needed <= risk < 0.95 ** (needed - 1)


def test_a_fault_in_thirteen_documents_is_met_in_a_quarter_of_the_text():
    for documents in (400, 2000, 100_000):
        unseen = stats.hypergeom(documents, 13, documents // 4).pmf(0)
        assert unseen <= 0.025


def test_a_distance_is_beyond_doubt_where_the_poisson_chance_of_missing_what_would_close_it_is_the_risk():
    for documents in (10, 50, 400):
        distance = np.linspace(0.01, 5.0, 500)
        missed = stats.poisson(documents * distance / 10.0).pmf(0)
        assert (beyond_doubt(distance, 10.0, documents, 0.95) == (missed < 0.025)).all()


def test_a_normal_sample_is_rarely_too_skewed_for_either_verdict():
    rng = np.random.default_rng(1)
    for documents in (12, 33, 84):
        skew = skewness(rng.standard_normal((4000, documents)))
        assert (skew > most_skewness(documents, passed=False)).mean() < 0.05
    assert (skew > most_skewness(84, passed=True)).mean() < 0.005


# The simulation


@pytest.mark.parametrize("population", ["normal, log-normal sizes", "exponential", "5 % carry all"])
@pytest.mark.parametrize("limit", [0.0, -0.02, 0.02, 4.0])
def test_the_simulation_decides_as_the_audit_does(population, limit):
    s, n = (ORDINARY | SKEWED)[population](np.random.default_rng(3), (12, 100))
    ruled = see(s, n).ruled(limit)
    for text in range(len(s)):
        verdict, share = as_the_audit_looks(s[text], n[text], limit)
        assert (bool(ruled["fail"][text]), bool(ruled["pass"][text])) == (verdict == "fail", verdict == "pass")
        assert ruled["share"][text] == share


@pytest.mark.parametrize("population", ["normal", "log-normal, σ 1", "5 % carry all"])
def test_fewer_texts_give_the_stored_figures(population):
    stored = next(row for row in kept()["wrong"] if (row["population"], row["documents"]) == (population, 100))
    found = wrong(draw_skewed((ORDINARY | SKEWED)[population], 100, runs=1000, seed=5))
    for name, share in found.items():
        margin = 4 * math.sqrt(max(stored[name] * (1 - stored[name]), 0.002) / 1000)
        assert share == pytest.approx(stored[name], abs=margin), name


def test_a_broken_limit_passes_hardly_more_often_than_on_the_whole_text():
    rows = kept()["wrong"]
    assert len(rows) == 4 * (len(ORDINARY) + len(SKEWED) + 1)
    for row in rows:
        rarer = row["population"] == "2 % carry all" and row["documents"] == 400  # 8 documents: a quarter misses all
        assert row["now_pass"] <= row["whole_pass"] + (0.08 if rarer else 0.036), row
        assert row["now_pass"] <= row["before_pass"]
        assert row["now_fail"] <= row["before_fail"]
        if "carry all" in row["population"] and row["documents"] <= 400:
            assert row["before_pass"] > row["whole_pass"] + 0.1, "without the rule this is what happens"
        if row["population"] in (*ORDINARY, "the bundled pair"):
            assert max(row["now_pass"], row["now_fail"]) < 0.02, row


def test_ordinary_changes_are_still_decided_early():
    for row in kept()["power"]:
        assert row["now"] >= row["before"] - 0.025, "what the rule sends on, the whole text decides"
        if row["population"] == "normal":
            assert row["refused"] < 0.06, row
        if row["effect"] >= 10:
            assert row["now_share"] < (0.35 if row["verdict"] == "fail" else 0.4 if row["documents"] > 100 else 0.9)


@pytest.mark.parametrize("documents", [100, 400, pytest.param(2000, marks=pytest.mark.thorough)])
def test_a_text_of_one_kind_may_pass_early_and_one_with_a_hard_twentieth_may_not(documents):
    rows = [row for row in kept()["baselines"] if row["documents"] == documents]
    assert rows
    for row in rows:
        assert row["refused"] == pytest.approx(too_skewed(LOSSES[row["population"]], row["documents"]), abs=1e-9)
        if row["population"] == "normal":
            assert row["refused"] < 0.002
        if row["population"] == "5 % cost 3 nats more":
            assert row["refused"] > 0.95


def kept():
    return json.loads(FILE.read_text("utf-8"))
