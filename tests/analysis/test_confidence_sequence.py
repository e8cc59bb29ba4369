"""Always-valid intervals: worked numbers, what they must be like, and how often they are ever wrong."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import t as student
from simulations.early_stopping import FILE, POPULATIONS, RUNS, draw_seen, false_alarms, look

from lossprobe.analysis.stats.confidence_sequence import (
    effective_clusters,
    last_quantile,
    looks,
    mixture_variance,
    sequence_quantile,
)
from lossprobe.analysis.stats.jackknife import jackknife_ratio

ALPHA = 0.025  # what the early looks of an audit at 95 % spend
CONFIDENCES = st.floats(0.5, 0.999)
PLANNED = st.integers(1, 100_000)
# Where one side of the last look alone misses more often than it says, early looks or not.
FEW_VERY_UNEQUAL = ("log-normal sizes, σ 1.5", 40)
ONE_SIDED = ("skewed means", "longer is worse", "one in twenty")


def known_variance(count, planned, alpha=ALPHA):
    """Return the half width in standard errors from the boundary of the mean as it is published."""
    t, rho2 = count, mixture_variance(planned, alpha)
    mean = math.sqrt(2 * (t * rho2 + 1) / (t**2 * rho2) * math.log(math.sqrt(t * rho2 + 1) / alpha))
    return mean * math.sqrt(t)


# Numbers


def test_the_quantile_is_where_the_mixture_of_likelihood_ratios_reaches_one_over_alpha():
    """The mixture by numerical integration, over the mean in standard deviations and the scale, of drawn data."""
    rng = np.random.default_rng(3)
    count, planned = 8, 40
    rho = math.sqrt(mixture_variance(planned, ALPHA))
    x = rng.standard_normal(count)
    quantile = float(sequence_quantile(count, planned, 0.95))
    x += quantile * x.std(ddof=1) / math.sqrt(count) - x.mean()  # now its t statistic is the quantile
    log_sigma = np.linspace(-6, 8, 1401)[:, None]
    delta = np.linspace(-8, 8, 1601)[None, :] * rho
    sigma = np.exp(log_sigma)
    square = (x**2).sum() / sigma**2 - 2 * delta * x.sum() / sigma + count * delta**2
    weight = np.exp(-(delta**2) / (2 * rho**2))
    under_mixture = (np.exp(-count * log_sigma - square / 2) * weight).sum() / weight.sum()
    under_zero = np.exp(-count * log_sigma[:, 0] - (x**2).sum() / sigma[:, 0] ** 2 / 2).sum()
    assert under_mixture / under_zero == pytest.approx(1 / ALPHA, rel=1e-6)


@pytest.mark.parametrize("planned", [40, 100, 2000])
def test_rho_makes_the_boundary_lowest_at_a_quarter_of_the_documents(planned):
    t = planned / 4

    def height(log_rho2):
        r = t * math.exp(log_rho2)
        return (1 + 1 / r) * (math.log1p(r) - 2 * math.log(ALPHA))

    best = math.exp(minimize_scalar(height, bounds=(-12, 4), method="bounded", options={"xatol": 1e-9}).x)
    assert mixture_variance(planned, ALPHA) == pytest.approx(best, rel=1e-4)


def test_with_very_many_documents_the_quantile_is_that_of_a_known_variance():
    for count in (100_000, 250_000, 900_000):
        assert sequence_quantile(count, 10**6, 0.95) == pytest.approx(known_variance(count, 10**6), rel=1e-4)


def test_the_last_look_is_students_t_with_half_of_the_risk():
    assert last_quantile(30, 0.9) == pytest.approx(student.ppf(0.975, 29), rel=1e-12)
    assert last_quantile([102, 2], 0.95) == pytest.approx(student.ppf(0.9875, [101, 1]), rel=1e-9)
    assert np.isnan(last_quantile([1, 0], 0.95)).all()


def test_effective_clusters_are_kishs():
    sizes = np.random.default_rng(0).lognormal(size=(3, 40))
    expected = [row.sum() ** 2 / (row**2).sum() for row in sizes]
    assert effective_clusters(sizes) == pytest.approx(expected)
    assert effective_clusters(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_clusters([0, 5, 0]) == 1.0  # documents without a token of the slice tell nothing


def test_looks_of_texts_of_all_sizes():
    assert looks(1) == [1]
    assert looks(10) == [10]
    assert looks(12) == [10, 12]
    assert looks(40) == [10, 12, 15, 18, 22, 27, 33, 40]
    assert looks(100_000)[0] == 10_000


@given(st.integers(1, 10**7))
def test_looks_grow_to_the_whole_text(documents):
    found = looks(documents)
    assert found[-1] == documents
    assert found[0] >= min(10, documents)
    assert found == sorted(set(found))
    assert len(found) <= 14
    early = np.array(found[:-1])
    assert (early < 0.9 * documents).all()
    assert (early >= 0.09 * documents).all()


# What they must be like


@given(st.integers(2, 10**6), PLANNED, CONFIDENCES)
def test_the_quantile_is_wider_than_that_of_one_look_and_of_a_known_variance(count, planned, confidence):
    quantile = float(sequence_quantile(count, planned, confidence))
    alpha = (1 - confidence) / 2
    assert quantile >= known_variance(count, planned, alpha) * (1 - 1e-9)
    assert quantile > student.ppf(1 - alpha / 2, count - 1)


@given(PLANNED, CONFIDENCES, st.floats(0.05, 1.0))
def test_half_widths_shrink_with_every_document(planned, confidence, worth):
    count = np.arange(2, 400)
    half = sequence_quantile(count, planned, confidence, worth * count) / np.sqrt(count)
    finite = np.isfinite(half)
    assert (np.diff(finite.astype(int)) >= 0).all(), "once something can be shown, it always can"
    assert (np.diff(half[finite]) < 0).all()


@given(st.integers(2, 5000), PLANNED, CONFIDENCES, CONFIDENCES)
def test_more_confidence_is_never_narrower(count, planned, one, other):
    low, high = sorted((one, other))
    for narrow, wide in (
        (sequence_quantile(count, planned, low), sequence_quantile(count, planned, high)),
        (last_quantile(count, low), last_quantile(count, high)),
    ):
        assert float(narrow) <= float(wide) * (1 + 1e-9)


@given(st.integers(2, 5000), st.floats(1.0, 5000.0), st.floats(1.0, 5000.0))
def test_unequal_documents_only_widen(count, one, other):
    low, high = sorted((one, other))
    most = float(sequence_quantile(count, 100, 0.95))
    assert float(sequence_quantile(count, 100, 0.95, low)) >= float(sequence_quantile(count, 100, 0.95, high)) >= most


@pytest.mark.parametrize(("count", "effective"), [(0, None), (1, None), (2, None), (3, 3), (10, 1.0), (10, 5.0)])
def test_too_few_documents_show_nothing(count, effective):
    assert sequence_quantile(count, 100, 0.95, effective) == np.inf


def test_many_looks_at_once_are_those_one_by_one():
    counts, effective = np.array([10, 40, 80]), np.array([[9.0, 30.0, 50.0], [4.0, 12.0, 80.0]])
    found = sequence_quantile(counts, 100, 0.9, effective)
    for row in range(2):
        for column in range(3):
            assert found[row, column] == sequence_quantile(int(counts[column]), 100, 0.9, effective[row, column])


# How often they are ever wrong


def test_brownian_motion_crosses_the_boundary_of_a_known_variance_seldom():
    """A random walk with 8 steps a document, from 1 to 1,600 documents, looked at after every step."""
    rng = np.random.default_rng(1)
    steps, walks, crossed, at = 8, 4000, np.zeros(4000, bool), np.zeros(4000)
    for first in range(0, 1600, 50):
        path = at[:, None] + rng.standard_normal((walks, 50 * steps)).cumsum(axis=1) / math.sqrt(steps)
        t = first + np.arange(1, 50 * steps + 1) / steps
        r = t * mixture_variance(100, ALPHA)
        boundary = np.sqrt(t * (1 + 1 / r) * (np.log1p(r) - 2 * math.log(ALPHA)))
        crossed |= (np.abs(path) > boundary).any(axis=1)
        at = path[:, -1]
    # Of 4,000 walks a share of .025 has a standard error of .0025; in finite time it is a little less.
    assert 0.012 < crossed.mean() < ALPHA + 0.005


def test_normal_documents_are_held_at_every_count_from_two_on():
    """Means of 2, 3, … 1,000 documents, with their own standard deviations: the guarantee is exact."""
    rng = np.random.default_rng(2)
    counts = np.arange(1, 1001)
    quantile = sequence_quantile(counts, 100, 0.95)
    wrong, naive = [], []
    for _ in range(8):
        x = 3.0 + rng.standard_normal((500, 1000))
        mean = x.cumsum(axis=1) / counts
        variance = np.maximum((x**2).cumsum(axis=1) - counts * mean**2, 0)[:, 1:] / (counts[1:] - 1)
        t = np.abs(mean[:, 1:] - 3.0) / np.sqrt(variance / counts[1:])
        wrong.append((t > quantile[1:]).any(axis=1))
        naive.append((t > student.ppf(0.975, counts[1:] - 1)).any(axis=1))
    assert 0.01 < np.mean(wrong) < ALPHA + 0.005
    assert np.mean(naive) > 0.3, "an ordinary interval at every look does not hold"


# The simulation


def test_the_simulations_standard_errors_are_those_of_the_jackknife():
    s, n = POPULATIONS["log-normal sizes"](np.random.default_rng(0), (2, 40))
    seen = look(s, n)
    for at, count in enumerate(seen.counts):
        known = jackknife_ratio(s[1, :count], n[1, :count])
        assert seen.estimate[at, 1] == pytest.approx(known.value, rel=1e-12)
        half = student.ppf(0.975, count - 1) * seen.error[at, 1]
        assert known.interval.high - known.value == pytest.approx(half, rel=1e-9)
        if count < 40:
            expected = sequence_quantile(count, 40, 0.95, n[1, :count].sum() ** 2 / (n[1, :count] ** 2).sum())
            assert seen.quantile[at, 1] == pytest.approx(expected)
        else:
            assert seen.quantile[at, 1] == pytest.approx(last_quantile(40, 0.95))


def test_an_audit_stops_at_its_first_decision():
    s, n = np.full((1, 40), 2.0), np.ones((1, 40))
    s[0, ::2] = 1.0  # mean 1.5, standard error .08 at 40
    audit = look(s, n).audit(0.0)
    assert (bool(audit["fail"][0]), bool(audit["early"][0]), float(audit["share"][0])) == (True, True, 0.25)
    audit = look(s, n).audit(1.5)
    assert not audit["fail"][0] | audit["pass"][0] | audit["early"][0]
    assert audit["share"][0] == 1.0
    assert look(s, n).audit(3.0)["pass"][0]


@pytest.mark.parametrize("population", ["equal sizes, normal", "log-normal sizes", "heavy tails"])
def test_fewer_texts_give_the_stored_figures(population):
    stored = next(row for row in kept()["false_alarms"] if (row["population"], row["documents"]) == (population, 100))
    found = false_alarms(draw_seen(POPULATIONS[population], 100, runs=1000, seed=5))
    for name, share in found.items():
        margin = 4 * math.sqrt(max(stored[name] * (1 - stored[name]), 0.002) / 1000)
        assert share == pytest.approx(stored[name], abs=margin), name


def test_false_alarms_over_all_looks_are_at_most_nominal():
    rows = kept()["false_alarms"]
    assert len(rows) == 4 * (len(POPULATIONS) + 1)
    assert RUNS >= 1000
    for row in rows:
        if row["population"] in ONE_SIDED:
            continue
        few = (row["population"], row["documents"]) == FEW_VERY_UNEQUAL
        for side in ("fail", "pass"):
            assert row[f"early_{side}"] <= ALPHA / 2, row
            assert row[side] <= 0.025 + 0.005 * few, row
            assert row[f"naive_{side}"] > 2 * row[side]
        assert row["fail"] + row["pass"] < row["whole_fail"] + row["whole_pass"]
        assert row["clear_fail"] <= 0.002


def test_power_and_the_share_of_the_text_that_is_needed():
    for row in kept()["power"]:
        assert row["fail"] >= row["whole"] - 0.12, "some power is the price of early looks"
        if row["effect"] >= 6:
            assert row["fail"] > 0.99
            assert row["share"] < 0.45
        if row["effect"] >= 10:
            assert row["share"] < 0.25
    for row in kept()["orders"]:
        assert row[row["whole"]] == 1.0, "in every order the verdict is that of the whole text"


def kept():
    return json.loads(FILE.read_text("utf-8"))
