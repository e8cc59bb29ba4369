"""Intervals and z-scores of a calibration against what is true, on few texts; `tests/simulations` has the many."""

import math

import numpy as np
import pandas as pd
import pytest
from drawn_runs import measure_rows
from scipy.stats import kstest
from simulations.calibration_truth import PANEL, Cell, coverage, simulate
from simulations.known_truth import FAULTS, SPREAD, draw_corpus, known, population

from lossprobe.analysis.calibration.bins import (
    equal_width_edges,
    expected_calibration_error,
    maximum_calibration_error,
)
from lossprobe.analysis.calibration.measures import MEASURES, mean_measures
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import bootstrap, bootstrap_error

SEEDS = 20
NULL_SEEDS = 200
ERRORS = ("ece", "ece_equal_mass", "mce", "smooth_ece", "vocabulary_error")


@pytest.fixture(scope="module")
def simulated():
    """Twenty texts of 30 documents, each with a temperature of its own, under a model without and one with a fault."""
    return simulate(Cell(30, 64, SPREAD, ("calibrated", "T 0.7")), SEEDS)


# What is true


def test_the_kept_truth_is_what_theory_says_where_documents_err_alike():
    true = known(64, 0.0)
    accuracy, nll = true["calibrated"]["accuracy"], true["calibrated"]["nll_nats"]
    for name, fault in FAULTS.items():
        found = true[name]
        if not fault.epsilon:
            assert found["temperature"] == pytest.approx(1 / fault.temperature, abs=1e-6)
            assert found["nll_after_temperature"] == pytest.approx(nll, abs=1e-6)
            assert found["ece_after_temperature"] == pytest.approx(0.0, abs=1e-4)
        else:
            assert found["confidence_gap"] == pytest.approx(-fault.epsilon * (accuracy - 1 / 64), abs=1e-8)
            assert found["slope_epsilon"] == pytest.approx(fault.epsilon, abs=1e-8)
            assert 0 < found["nll_nats"] - nll < -math.log1p(-fault.epsilon)
            assert found["ece"] == pytest.approx(-found["confidence_gap"], abs=1e-8)  # all bins err to one side
        assert found["accuracy"] == accuracy
        parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bin"]
        assert found["top1_brier"] == pytest.approx(parts, abs=1e-8)
    for name in ("nll_minus_entropy_nats", "confidence_gap", "ece", "ece_equal_mass", "smooth_ece", "vocabulary_error"):
        assert true["calibrated"][name] == pytest.approx(0.0, abs=1e-8), name


@pytest.mark.thorough
def test_a_smaller_draw_gives_the_kept_truth():
    names = ("calibrated", "ε 0.1")
    kept, drawn = known(64, SPREAD), population(64, SPREAD, names, rows=20_000, seed=1)
    # Rows vary by 1.5 nats and by .3 in probability, so that means of 20,000 have errors of .01 and .002.
    margins = {"nll_nats": 0.04, "nll_minus_entropy_nats": 0.02, "temperature": 0.01, "slope_epsilon": 0.02}
    for name in names:
        assert drawn[name].keys() == kept[name].keys()
        for measure in drawn[name].keys() - {"gaps"}:
            margin = margins.get(measure, 0.04 if measure == "nll_after_temperature" else 0.008)
            assert drawn[name][measure] == pytest.approx(kept[name][measure], abs=margin), (name, measure)


# How often it is held


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["calibrated", "T 0.7"])
def test_intervals_hold_the_truth(simulated, fault):
    true, seen = simulated
    shares = {
        name: coverage(name, true[fault], seen[fault])
        for name in (*MEASURES, "temperature", "slope_epsilon", *PANEL)
        if name in seen[fault][0].measures
    }
    assert len(shares) == len(MEASURES) + 2 + len(PANEL) * (fault != "calibrated")
    assert [name for name, share in shares.items() if share is None] == list(PANEL[1:]) * (fault != "calibrated")
    shares = {name: share for name, share in shares.items() if share is not None}
    # Of twenty, fewer than 16 hold the truth once in 3,000 times at 95 %; these are always the same twenty.
    assert min(shares.values()) >= 0.8, shares
    assert 0.9 <= np.mean(list(shares.values())) <= 1.0


@pytest.mark.thorough
def test_a_temperature_undoes_a_temperature(simulated):
    _, seen = simulated
    left = [one.measures[PANEL[1]] for one in seen["T 0.7"]]
    assert max(abs(measure.value) for measure in left) < 2e-5  # nats: the ladder is interpolated
    assert min(one.measures[PANEL[0]].value for one in seen["T 0.7"]) > 0.02


@pytest.mark.thorough
def test_intervals_are_no_wider_than_they_need_be(simulated):
    _, seen = simulated
    for name in MEASURES:
        measures = [one.measures[name] for one in seen["T 0.7"]]
        half = np.mean([(measure.interval.high - measure.interval.low) / 2 for measure in measures])
        spread = np.std([measure.value for measure in measures], ddof=1)
        assert 0.65 < half / (2.05 * spread) < 1.7, name


@pytest.mark.thorough
def test_an_error_that_noise_explains_has_an_interval_from_zero_on_and_one_beyond_it_does_not(simulated):
    _, seen = simulated
    for name in ERRORS:
        assert np.mean([one.measures[name].interval.low == 0.0 for one in seen["calibrated"]]) >= 0.9, name
        assert min(one.measures[name].interval.high for one in seen["calibrated"]) > 0.0
    for name in ("ece", "ece_equal_mass", "smooth_ece", "vocabulary_error"):
        assert np.mean([one.measures[name].interval.low > 0.02 for one in seen["T 0.7"]]) >= 0.9, name


@pytest.mark.thorough
def test_noise_floors_are_what_a_calibrated_model_shows():
    _, seen = simulate(Cell(30, 64, 0.0, ("calibrated",)), 10)
    for name in ERRORS:
        values = np.array([one.measures[name].value for one in seen["calibrated"]])
        floor = np.mean([one.measures[name].noise_floor for one in seen["calibrated"]])
        assert abs(values.mean() - floor) < 3 * values.std(ddof=1) / math.sqrt(len(values)) + 0.03 * floor, name


# z-scores


def outcome_frame(corpus) -> pd.DataFrame:
    """Return what `outcome_sums` reads from a run of the true model, straight from the logits."""
    rows = measure_rows(corpus.logits, corpus.targets)
    x, o = rows["top_prob"], (rows["top_id"] == corpus.targets).astype(float)
    n, entropy = rows["loss_nats"], rows["entropy_nats"]
    brier = rows["sum_p2"] - 2 * np.exp(-n) + 1
    columns = {
        "tokens": np.ones(len(x)), "nats": n, "entropy": entropy, "varentropy": rows["varentropy"], "confidence": x,
        "correct": o, "top5": rows["rank"] < 5, "brier": brier, "spread": x * (1 - x), "nats2": n**2,
        "excess2": (n - entropy) ** 2, "gap2": (x - o) ** 2, "brier2": brier**2, "confidence2": x**2,
        "confidence_correct": x * o,
    }  # fmt: skip
    return pd.DataFrame(columns).groupby(corpus.documents).sum()


@pytest.mark.thorough
def test_z_scores_of_a_calibrated_model_are_standard_normal():
    found = [mean_measures(outcome_frame(draw_corpus(seed, 30, 64, 0.0))) for seed in range(NULL_SEEDS)]
    for name in ("confidence_gap", "nll_minus_entropy_nats"):
        z = np.array([measures[name].z for measures in found])
        # Standard errors of 200: of the mean .071, of the standard deviation .05, of a share of .05 .015.
        assert abs(z.mean()) < 0.2, name
        assert z.std(ddof=1) == pytest.approx(1.0, abs=0.14)
        assert 0.01 < np.mean(np.abs(z) > 1.96) < 0.1
        assert kstest(z, "norm").pvalue > 0.01


# The interval of an error


def draw_bins(rng, clusters: int, gap: float, noise: float = 0.0) -> np.ndarray:
    """Return sums [G, 15, 5] of clusters of 100 tokens whose accuracy is `gap` below confidence, more or less."""
    sums = []
    for _ in range(clusters):
        x = rng.uniform(0.2, 0.9, 100)
        o = rng.random(100) < x - gap + noise * rng.standard_normal()
        bins = np.searchsorted(equal_width_edges(), x, side="right")
        sums.append(np.stack([np.bincount(bins, w, 15) for w in (x**0, x, o, x * x, x * o)], axis=-1))
    return np.array(sums)


def error_interval(sums, statistic=expected_calibration_error, high=1.0):
    return bootstrap_error(sums, sums[..., [0, 1, 1, 3, 3]], sums[..., 0].sum(axis=-1), statistic, high)


@pytest.mark.parametrize(("clusters", "gap", "noise"), [(8, 0.0, 0.0), (25, 0.0, 0.0), (25, 0.03, 0.05)])
def test_the_interval_of_an_error_holds_it_where_that_of_a_mean_does_not(clusters, gap, noise):
    rng = np.random.default_rng(clusters)
    held, plain, highs = 0, 0, []
    for _ in range(100):
        sums = draw_bins(rng, clusters, gap, noise)
        found, naive = error_interval(sums), bootstrap(sums, expected_calibration_error, 0.0, 1.0)
        held += found.interval.low <= gap <= found.interval.high
        plain += naive.interval.low <= gap <= naive.interval.high
        highs.append(found.interval.high)
    assert held >= 90
    if gap == 0.0:
        assert plain < 80
        assert min(highs) > 0.5 * np.mean(highs), "less error than noise gives makes nothing certain"


def test_far_from_zero_it_is_the_interval_of_the_gap():
    sums = draw_bins(np.random.default_rng(1), 40, 0.15, 0.05)
    found = error_interval(sums)
    gap = jackknife_ratio((sums[..., 1] - sums[..., 2]).sum(axis=1), sums[..., 0].sum(axis=1))
    assert found.value == pytest.approx(gap.value, abs=2e-3)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (gap.interval.low, gap.interval.high), abs=0.15 * (gap.interval.high - gap.interval.low)
    )


def test_documents_of_different_sizes_add_no_noise_of_their_own():
    sums = np.arange(1, 13)[:, None, None] ** 2 * draw_bins(np.random.default_rng(5), 12, 0.2, 0.05)
    found = error_interval(sums)
    gap = jackknife_ratio((sums[..., 1] - sums[..., 2]).sum(axis=1), sums[..., 0].sum(axis=1))
    assert found.interval.high - found.interval.low == pytest.approx(gap.interval.high - gap.interval.low, rel=0.05)


def test_a_bin_that_one_cluster_fills_leaves_everything_open():
    """Without it the bin is all but empty, and noise can be anything: then no larger error shows a larger one."""
    sums = np.zeros((8, 2, 5))
    sums[:, 0] = [100, 50, 49, 25, 24.5]
    sums[:, 1] = [1, 0.9, 1, 0.81, 0.9]
    sums[0, 1] = [200, 180, 80, 162, 72]
    found = error_interval(sums, lambda totals: maximum_calibration_error(totals, least=1))
    assert found.value == pytest.approx((180 + 6.3 - 87) / 207)
    assert found.interval.low == 0.0
    assert found.interval.high == 1.0


def test_two_clusters_that_differ_leave_everything_open():
    found = error_interval(draw_bins(np.random.default_rng(6), 2, 0.1, 0.3))
    assert found.interval.low == 0.0
    assert found.interval.high == 1.0


def test_the_interval_is_the_same_each_time_and_for_every_unit():
    sums = draw_bins(np.random.default_rng(2), 12, 0.15)
    found = error_interval(sums)
    assert found == error_interval(sums)
    twice = error_interval(2 * sums)
    assert (twice.interval.low, twice.interval.high) == pytest.approx((found.interval.low, found.interval.high))
    assert 0 < found.interval.low < found.interval.high < 1
    assert error_interval(sums, high=found.value / 2).interval.high == found.value / 2


def test_no_interval_without_clusters_or_without_a_statistic():
    sums = draw_bins(np.random.default_rng(3), 5, 0.05)
    one = error_interval(sums[:1])
    assert (one.interval.low, one.interval.high) == (None, None)
    assert one.value == expected_calibration_error(sums[0])

    def only_of_all(totals):
        return np.where(totals[..., 0].sum(axis=-1) >= 500, expected_calibration_error(totals), np.nan)

    for found in (error_interval(sums, only_of_all), bootstrap(sums, only_of_all)):
        assert found.value > 0
        assert (found.interval.low, found.interval.high) == (None, None)


def test_clusters_that_are_all_the_same_leave_nothing_to_chance():
    sums = np.tile(draw_bins(np.random.default_rng(4), 1, 0.2), (6, 1, 1))
    found = error_interval(sums)
    assert (found.interval.low, found.interval.high) == pytest.approx((found.value, found.value))
    perfect = sums[..., [0, 1, 1, 3, 3]]
    found = error_interval(perfect)
    assert (found.value, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)
