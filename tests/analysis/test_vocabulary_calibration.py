"""Calibration of all probabilities against counts of pairs, and simulated calibrated models."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_runs import (
    document_numbers,
    draw_logits,
    draw_targets,
    log_probabilities,
    smoothed_logits,
    tempered_logits,
    write_drawn,
)
from fake_runs import words
from scipy.stats import binom

from lossprobe.analysis.calibration.vocabulary import (
    BINS,
    LOWEST,
    PER_DECADE,
    vocabulary_error,
    vocabulary_noise,
    vocabulary_sums,
    vocabulary_table,
)
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import at_most, bootstrap
from lossprobe.errors import OutputError


def pair_sums(p, targets):
    """Return sums [121, 3] of probabilities [N, V] from the definition, one bin after the other."""
    hit = np.zeros(p.shape, bool)
    hit[np.arange(len(p)), targets] = True
    ends = np.concatenate([[0.0], 10.0 ** (np.arange(-120, 1) / 10)])
    ends[-1] = np.inf
    rows = []
    for low, high in itertools.pairwise(ends):
        own = (p >= low) & (p < high)
        rows.append((own.sum(), p[own].sum(), hit[own].sum()))
    return np.array(rows, float)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A calibrated run of 8 documents, and the documents of its rows."""
    rng = np.random.default_rng(1)
    logits = draw_logits(rng, 1500, 40)
    documents = document_numbers(rng, 1500, 8)
    return write_drawn(tmp_path_factory.mktemp("drawn") / "run", logits, draw_targets(rng, logits), documents)


def test_bins_are_those_of_the_pass():
    from lossprobe.scoring.histogram import HistogramBins

    bins = HistogramBins()
    assert (bins.lowest, bins.per_decade, bins.count) == (LOWEST, PER_DECADE, BINS)


def test_sums_are_those_of_all_pairs_of_each_document(drawn):
    clusters = find_clusters(drawn.run)
    sums = vocabulary_sums(drawn.run, clusters)
    p = np.exp(log_probabilities(drawn.logits))
    expected = [pair_sums(p[drawn.documents == d], drawn.targets[drawn.documents == d]) for d in range(8)]
    np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-15)
    merged = vocabulary_sums(drawn.run, at_most(clusters, 3))
    np.testing.assert_allclose(merged, [sums[d::3].sum(axis=0) for d in range(3)], rtol=1e-12)


def test_oracle_25_each_token_has_a_probability_of_1_and_a_hit(drawn):
    pairs, expected, hits = vocabulary_sums(drawn.run, find_clusters(drawn.run)).sum(axis=(0, 1))
    assert pairs == 1500 * 40
    assert expected == pytest.approx(1500, rel=1e-12)
    assert hits == 1500


def test_a_document_in_two_parts_and_blocks_of_one_are_one_cluster(tmp_path):
    rng = np.random.default_rng(2)
    logits = draw_logits(rng, 9000, 4)
    targets = draw_targets(rng, logits)
    run = write_drawn(tmp_path / "run", logits, targets, np.zeros(9000, int), rows_per_part=5000).run
    clusters = find_clusters(run)
    assert (clusters.unit, clusters.count) == ("block", 2)
    sums = vocabulary_sums(run, clusters)
    np.testing.assert_allclose(sums, [pair_sums(np.exp(log_probabilities(logits)), targets)], rtol=1e-11, atol=1e-14)
    assert bootstrap(sums, vocabulary_error).interval.low is None
    table = vocabulary_table(sums)
    assert table["hits_per_expected"].notna().any()
    assert table[["ratio_low", "ratio_high"]].isna().all(axis=None)


def test_the_error_by_hand():
    # Two tokens, entries (.8, .2) and (.5, .5): what came were the .8 and a .5.
    p = np.array([[0.8, 0.2], [0.5, 0.5]])
    sums = pair_sums(p, [0, 1])
    assert sums[sums[:, 0] > 0].tolist() == [[1, 0.2, 0], [2, 1.0, 1], [1, 0.8, 1]]
    assert float(vocabulary_error(sums)) == pytest.approx((0.2 + 0 + 0.2) / 2)
    both = vocabulary_error(np.stack([sums, 0 * sums]))
    assert both.tolist() == pytest.approx([0.2, np.nan], nan_ok=True)
    # Certain and always wrong is the worst.
    wrong = pair_sums(np.array([[1.0, 0.0]] * 3), [1, 1, 1])
    assert float(vocabulary_error(wrong)) == 2.0
    assert float(vocabulary_error(pair_sums(np.array([[1.0, 0.0]] * 3), [0, 0, 0]))) == 0.0


def test_the_noise_is_the_mean_deviation_of_a_binomial():
    rng = np.random.default_rng(3)
    pairs = rng.integers(1, 300, BINS).astype(float)
    expected = pairs * rng.uniform(0, 1, BINS) ** 3
    expected[:3] = (0, pairs[1], 0.5)  # nothing, certainty, and less than one hit to expect
    tokens = 200
    hits = np.zeros(BINS)
    hits[5] = tokens
    n = np.minimum(pairs, tokens).astype(int)
    q = np.minimum(expected, n)
    by_sum = 0.0
    for m, p in zip(n.tolist(), (q / n).tolist(), strict=True):
        by_sum += np.abs(np.arange(m + 1) - m * p) @ binom.pmf(np.arange(m + 1), m, p)
    noise = vocabulary_noise(np.column_stack([pairs, q, hits]))
    assert noise == pytest.approx(by_sum / tokens, rel=1e-9)
    large = np.zeros((BINS, 3))
    large[50] = (4e9, 1e6, 1e6)
    large[120] = (1e7, 9e6, 9e6)
    normal = np.sqrt(2 / np.pi * np.array([1e6 * 0.9, 9e6 * 0.1])).sum() / 1e7
    assert vocabulary_noise(large) == pytest.approx(normal, rel=1e-4)
    assert np.isnan(vocabulary_noise(0 * large))


@pytest.mark.parametrize(("rows", "vocab"), [(100, 200), (1000, 200), (1000, 20)])
def test_the_noise_is_what_a_calibrated_model_shows_or_a_little_more(rows, vocab):
    rng = np.random.default_rng(rows + vocab)
    logits = draw_logits(rng, rows, vocab)
    p = np.exp(log_probabilities(logits))
    sums = pair_sums(p, draw_targets(rng, logits))
    index = np.searchsorted(10.0 ** (np.arange(-120, 0) / 10), p, side="right")
    errors = []
    for _ in range(200):
        hits = np.bincount(index[np.arange(rows), draw_targets(rng, logits)], minlength=BINS)
        errors.append(float(vocabulary_error(np.column_stack([sums[:, :2], hits]))))
    error = np.std(errors) / np.sqrt(200)
    assert np.mean(errors) - 3 * error < vocabulary_noise(sums) < 1.06 * np.mean(errors)


def test_the_error_sees_what_the_first_choice_hides():
    rng = np.random.default_rng(4)
    true = draw_logits(rng, 20_000, 50)
    targets = draw_targets(rng, true)
    errors = {}
    for name, logits in (("true", true), ("smoothed", smoothed_logits(true, 0.1)), ("hot", tempered_logits(true, 1.3))):
        sums = pair_sums(np.exp(log_probabilities(logits)), targets)
        errors[name] = float(vocabulary_error(sums)) / vocabulary_noise(sums)
        table = vocabulary_table(sums[None])
        tail = table[table["p_high"] < 3e-3]
        errors[name, "tail"] = tail["hits"].sum() / tail["sum_p"].sum()
    assert 0.7 < errors["true"] < 1.3
    assert errors["smoothed"] > 3
    assert errors["hot"] > 3
    assert errors["true", "tail"] == pytest.approx(1, abs=0.15)
    assert errors["smoothed", "tail"] < 0.2  # smoothing gives rare entries far too much


def test_a_table_of_bins(drawn):
    sums = vocabulary_sums(drawn.run, find_clusters(drawn.run))
    table = vocabulary_table(sums)
    assert list(table.columns) == [
        "bin", "p_low", "p_high", "pairs", "sum_p", "hits", "hits_per_expected", "ratio_low", "ratio_high",
    ]  # fmt: skip
    assert table["bin"].tolist() == list(range(121))
    assert table["p_low"].iloc[[0, 1, 2, 120]].tolist() == pytest.approx([0, 1e-12, 10**-11.9, 10**-0.1])
    assert table["p_high"].iloc[[0, 1, 119, 120]].tolist() == pytest.approx([1e-12, 10**-11.9, 10**-0.1, 1])
    assert (table["p_low"].iloc[1:].to_numpy() == table["p_high"].iloc[:-1].to_numpy()).all()
    mean = table["sum_p"] / table["pairs"]
    held = table["pairs"] > 0
    assert (mean[held] >= table["p_low"][held]).all()
    assert (mean[held] <= table["p_high"][held] * (1 + 1e-9)).all()
    assert table["pairs"].sum() == 60_000
    assert table["pairs"].dtype == table["hits"].dtype == np.int64
    row = table.iloc[115]
    clusters = sums[sums[:, 115, 1] > 0, 115]
    found = jackknife_ratio(clusters[:, 2], clusters[:, 1])
    assert row["hits_per_expected"] == pytest.approx(row["hits"] / row["sum_p"]) == pytest.approx(found.value)
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((max(0, found.interval.low), found.interval.high))
    covered = table[(table["hits"] >= 20)]
    assert len(covered) > 15
    assert ((covered["ratio_low"] <= 1) & (covered["ratio_high"] >= 1)).mean() > 0.8  # it is calibrated


def test_a_ratio_that_cannot_be_given_is_missing():
    sums = np.zeros((3, BINS, 3))
    sums[:, 10] = (50, 0.5, 0)  # no hit anywhere
    sums[:, 20] = [(50, 0.5, 0), (50, 0.5, 1), (50, 0.5, 0)]  # a hit in one cluster
    sums[:, 30] = [(50, 0.5, 2), (50, 0.5, 0), (50, 0.5, 1)]
    sums[0, 40] = (50, 0.5, 2)  # pairs in one cluster
    table = vocabulary_table(sums)
    assert table["hits_per_expected"].iloc[[0, 10, 20, 30, 40]].tolist() == pytest.approx(
        [np.nan, 0, 2 / 3, 2, 4], nan_ok=True
    )
    given = table[["ratio_low", "ratio_high"]].notna().all(axis=1)
    assert np.flatnonzero(given).tolist() == [30]
    assert table["ratio_low"].iloc[30] == 0.0  # cut: the interval reaches below


def test_a_run_without_a_histogram_has_no_error(make_run):
    run = make_run([words("first_token", 1, 2)])
    sums = vocabulary_sums(run, find_clusters(run))
    assert sums.shape == (0, BINS, 3)
    assert np.isnan(float(vocabulary_error(sums.sum(axis=0))))
    assert vocabulary_table(sums)["hits_per_expected"].isna().all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_numbers_that_scoring_never_writes_are_refused(tmp_path, bad):
    rng = np.random.default_rng(5)
    logits = draw_logits(rng, 3, 5)
    run = write_drawn(tmp_path / "run", logits, draw_targets(rng, logits), np.zeros(3, int)).run
    file = run.path / "histogram/part-00000.parquet"
    table = pq.read_table(file)
    at = table.schema.get_field_index("sum_p")
    values = pa.array([bad] * len(table), pa.float64())
    pq.write_table(table.set_column(at, table.schema.field(at), values), file)
    with pytest.raises(OutputError, match="histogram is not finite"):
        vocabulary_sums(run, find_clusters(run))
