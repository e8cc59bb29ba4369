"""The bootstrap over clusters: what it resamples, and what its interval is."""

import numpy as np
import pytest

from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import MAX_CLUSTERS, RESAMPLES, at_most, bootstrap, resample


def mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_equal_clusters_leave_nothing_to_chance():
    found = bootstrap(np.tile([3.0, 2.0], (5, 1)), mean)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((1.5, 1.5, 1.5))


def test_one_cluster_has_no_interval():
    found = bootstrap(np.array([[3.0, 2.0]]), mean)
    assert (found.value, found.interval.low, found.interval.high) == (1.5, None, None)


def test_resamples_are_of_whole_clusters_with_replacement_and_the_same_each_time():
    sums = np.array([[1.0, 1.0], [10.0, 1.0], [100.0, 1.0]])
    replicates = resample(sums, lambda drawn: drawn[..., 0])
    assert len(replicates) == RESAMPLES
    counts = {a + 10 * b + 100 * (3 - a - b) for a in range(4) for b in range(4 - a)}
    assert set(replicates) == counts
    assert (replicates == resample(sums, lambda drawn: drawn[..., 0])).all()
    assert (replicates != resample(sums, lambda drawn: drawn[..., 0], seed=1)).any()


def test_the_interval_of_a_mean_is_that_of_the_t_formula():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=12)
    found = bootstrap(np.stack([values, np.ones(12)], axis=1), mean)
    half = 2.200985 * values.std(ddof=1) / np.sqrt(12)  # t(11) at 97.5 %
    assert found.value == pytest.approx(values.mean())
    assert found.interval.high - found.interval.low == pytest.approx(2 * half, rel=0.1)
    assert (found.interval.high + found.interval.low) / 2 == pytest.approx(values.mean(), abs=0.15 * half)


def test_large_inputs_are_resampled_piece_by_piece():
    sums = np.random.default_rng(1).random((900, 40, 300))
    replicates = resample(sums, lambda drawn: drawn.mean(axis=(-1, -2)))
    assert len(replicates) == RESAMPLES
    assert replicates.mean() == pytest.approx(sums.sum(axis=0).mean(), rel=1e-3)


def test_an_interval_stays_within_what_the_statistic_can_be():
    sums = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    found = bootstrap(sums, mean, 0.0, 0.6)
    assert found.interval.low == 0.0
    assert found.interval.high == 0.6


def test_many_clusters_are_merged_and_few_are_not():
    few, many = Clusters("document", 10, "document", None), Clusters("document", 10_000, "document", "note")
    assert at_most(few) is few
    assert at_most(many) == Clusters("document", MAX_CLUSTERS, "((document) % 1000)", "note")
