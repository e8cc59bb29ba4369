"""Bins of confidence and what is made of them, against definitions, other libraries and simulated calibrated models."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawn_runs import draw_logits, draw_targets, write_drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from lossprobe.analysis.calibration.bins import (
    bin_sums,
    bin_table,
    debiased_squared_error,
    equal_mass_edges,
    equal_width_edges,
    expected_calibration_error,
    expected_noise,
    grouped_bin_sums,
    maximum_calibration_error,
    maximum_noise,
    reliability,
    resolution,
    top1_brier,
    uncertainty,
    within_bin,
)
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import at_most, bootstrap
from lossprobe.errors import OutputError
from lossprobe.run import reader

STATISTICS = (
    expected_calibration_error, maximum_calibration_error, debiased_squared_error, top1_brier, reliability, resolution,
    uncertainty, within_bin,
)  # fmt: skip


def summed(x, o, edges):
    """Return sums [B, 5] of confidences and outcomes from the definition, one bin after the other."""
    x, o = np.asarray(x, float), np.asarray(o, float)
    ends = [-np.inf, *edges, np.inf]
    inside = [(x >= low) & (x < high) for low, high in itertools.pairwise(ends)]
    return np.array([[np.sum(value[own]) for value in (x**0, x, o, x**2, x * o)] for own in inside])


def bets(x, correct):
    """Return logits whose first choice is entry 0 with the probability x (≥ 1/64), and targets: it, or another one.

    An x of 1 leaves the others 1e-12: it is stored as 1, and the loss of another one stays finite.
    """
    x = np.asarray(x, float)
    rest = np.log(np.maximum(1 - x, 1e-12) / 63)
    return np.column_stack([np.log(x), *[rest] * 63]), np.where(np.asarray(correct, bool), 0, 1)


@pytest.fixture
def run_of(tmp_path):
    """Write a run of given confidences and outcomes; a document for each number in `documents`."""

    def write(x, correct, documents=None, name="run"):
        logits, targets = bets(x, correct)
        documents = np.zeros(len(targets), int) if documents is None else documents
        return write_drawn(tmp_path / name, logits, targets, documents).run

    return write


def stored(run):
    """Return the confidences and outcomes of a run, in its order."""
    frame = run.query("SELECT top_prob, top_id = token_id AS correct FROM tokens WHERE unscored IS NULL")
    return frame["top_prob"].to_numpy(float), frame["correct"].to_numpy(float)


def draw(rng, count):
    """Return confidences about as spread as a language model's, and outcomes of a calibrated one."""
    x = rng.beta(0.5, 0.9, count)
    return x, (rng.random(count) < x).astype(float)


# The scan


def test_bins_hold_their_lower_edge_and_the_last_one_holds_1(run_of):
    # These are float32 numbers, so that nothing is rounded: edges .25, .5, .75.
    x = [0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.0]
    run = run_of(x, [0, 1, 0, 1, 1, 1, 1])
    assert stored(run)[0].tolist() == x
    sums = bin_sums(run, find_clusters(run), equal_width_edges(4))
    assert sums.tolist() == [[
        [1, 0.125, 0, 0.015625, 0], [2, 0.625, 1, 0.203125, 0.25], [1, 0.5, 1, 0.25, 0.5], [3, 2.75, 3, 2.5625, 2.75],
    ]]  # fmt: skip


def test_sums_are_those_of_each_document_and_bin(run_of):
    rng = np.random.default_rng(1)
    x = rng.uniform(1 / 60, 1, 700)
    documents = np.repeat([0, 1, 2, 3], [300, 1, 250, 149])
    run = run_of(x, rng.random(700) < 0.6, documents)
    x, o = stored(run)
    clusters = find_clusters(run)
    for edges in (equal_width_edges(), equal_width_edges(1), np.array([0.1, 0.11, 0.9])):
        sums = bin_sums(run, clusters, edges)
        expected = [summed(x[documents == d], o[documents == d], edges) for d in range(4)]
        np.testing.assert_allclose(sums, expected, rtol=1e-13, atol=0)
    merged = bin_sums(run, at_most(clusters, 3), equal_width_edges())
    apart = bin_sums(run, clusters, equal_width_edges())
    np.testing.assert_allclose(merged, [apart[0] + apart[3], apart[1], apart[2]], rtol=1e-13)


def test_conditions_and_keys_choose_the_rows(run_of):
    rng = np.random.default_rng(2)
    run = run_of(rng.uniform(1 / 60, 1, 60), rng.random(60) < 0.5, np.repeat([0, 1, 2], 20))
    clusters, edges = find_clusters(run), equal_width_edges(4)
    keys, sums = grouped_bin_sums(run, "CASE WHEN token < 5 THEN 'early' ELSE 'late' END", edges)
    assert (list(keys), sums.shape) == (["early", "late"], (2, 4, 5))
    assert sums[0, :, 0].sum() == 3 * 4  # the first token is unscored
    np.testing.assert_allclose(sums[0], bin_sums(run, clusters, edges, where="token < 5").sum(axis=0), rtol=1e-13)
    two_documents = "(SELECT * FROM tokens WHERE document <> 1)"
    keys, sums = grouped_bin_sums(run, "document", edges, two_documents, "token < 5")
    assert keys.tolist() == [0, 2]
    np.testing.assert_array_equal(sums, bin_sums(run, clusters, edges, two_documents, "token < 5"))
    nothing = bin_sums(run, clusters, edges, where="FALSE")
    assert nothing.shape == (0, 4, 5)
    assert equal_mass_edges(run, where="FALSE").tolist() == []
    assert np.isnan([statistic(nothing.sum(axis=0)) for statistic in STATISTICS]).all()


@pytest.mark.parametrize("rows", [7, 10**6])
@pytest.mark.parametrize("count", [1, 2, 14, 15, 16, 17, 100, 499])
def test_equal_mass_edges_cut_where_numpy_s_quantiles_cut(run_of, monkeypatch, count, rows):
    monkeypatch.setattr(reader, "BATCH_ROWS", rows)
    rng = np.random.default_rng(count)
    run = run_of(rng.uniform(1 / 60, 1, count), rng.random(count) < 0.5)
    x, _ = stored(run)
    edges = equal_mass_edges(run)
    # Quantiles at whole ranks lie on a stored number, which numpy may miss by a rounding error: 1e-12 puts it right.
    cuts = np.unique(np.quantile(x, np.arange(1, 15) / 15)) - 1e-12
    expected = [n for n in summed(x, x, cuts)[:, 0] if n]
    assert bin_sums(run, find_clusters(run), edges).sum(axis=0)[:, 0].tolist() == expected
    assert set(edges) <= set(x)
    assert min(expected) >= count // 15


def test_equal_confidences_share_a_bin_and_no_bin_is_empty(run_of):
    rng = np.random.default_rng(3)
    cases = [
        ([0.5] * 40, 1),  # one value: one bin
        ([0.25] * 39 + [0.5], 1),  # no quantile below 14/15 reaches the .5
        ([0.25] * 30 + [0.5] * 10, 2),
        ([0.25] + [0.5] * 39, 2),
        ([0.125, 0.25, 0.5, 1.0], 4),
        (rng.integers(1, 30, 300) / 32, None),
        (np.minimum(rng.uniform(0.1, 2, 300), 1.0), None),  # half of them are exactly 1
    ]
    for number, (x, bins) in enumerate(cases):
        run = run_of(rng.permutation(x), np.ones(len(x)), name=f"run-{number}")
        edges = equal_mass_edges(run)
        counts = bin_sums(run, find_clusters(run), edges).sum(axis=0)[:, 0]
        assert (counts > 0).all()
        assert len(counts) == bins or (bins is None and 2 < len(counts) <= 15)
        assert (np.diff(edges) > 0).all()


def test_numbers_that_scoring_never_writes_are_refused(run_of):
    for index, bad in enumerate([np.nan, np.inf, -np.inf, None]):
        run = run_of([0.5, 0.25, 0.75], [1, 0, 1], name=f"run-{index}")
        file = run.path / "tokens/part-00000.parquet"
        table = pq.read_table(file)
        values = [*table["top_prob"].to_pylist()[:2], bad, 0.75]
        at = table.schema.get_field_index("top_prob")
        pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values, pa.float32())), file)
        with pytest.raises(OutputError, match="document 0, token 2"):
            bin_sums(run, find_clusters(run), np.array([0.5]))
        with pytest.raises(OutputError, match="document 0, token 2"):
            bin_sums(run, find_clusters(run), np.empty(0))
        with pytest.raises(OutputError, match="document 0, token 2"):
            equal_mass_edges(run)


# The figures, from their definitions


def test_oracle_12_one_confidence_has_one_error_in_any_bins(run_of):
    # 30 of 40 right at .5: the error is .25 for every number of bins, of equal width or mass.
    run = run_of([0.5] * 40, [1, 1, 1, 0] * 10)
    clusters = find_clusters(run)
    for bins in (1, 2, 3, 15, 40):
        for edges in (equal_width_edges(bins), equal_mass_edges(run, bins)):
            assert float(expected_calibration_error(bin_sums(run, clusters, edges).sum(axis=0))) == 0.25


def test_oracle_12_a_confidence_of_1_shares_the_last_bin(run_of):
    run = run_of([0.95, 1.0], [1, 0])
    sums = bin_sums(run, find_clusters(run), equal_width_edges()).sum(axis=0)
    assert float(expected_calibration_error(sums)) == pytest.approx(0.475, abs=1e-7)  # .95 is stored as float32
    assert sums[-1, 0] == 2


def test_oracle_13_refining_bins_never_lowers_the_error():
    rng = np.random.default_rng(4)
    x, o = draw(rng, 3000)
    errors = [float(expected_calibration_error(summed(x, o, equal_width_edges(2**k)))) for k in range(10)]
    assert errors[0] == pytest.approx(abs(x.mean() - o.mean()), rel=1e-12)
    assert (np.diff(errors) >= -1e-15).all()
    assert errors[9] > 2 * errors[0]
    over = [float(expected_calibration_error(summed(x, o * (x < 0.01), equal_width_edges(2**k)))) for k in range(4)]
    assert over == pytest.approx([over[0]] * 4, rel=1e-12)  # all gaps have one sign: every binning agrees


def test_oracle_14_order_and_copies_change_no_plug_in_figure(run_of):
    rng = np.random.default_rng(5)
    x, o = rng.uniform(1 / 60, 1, 400), rng.random(400) < 0.5
    order = rng.permutation(400)
    runs = [run_of(x, o, name="a"), run_of(x[order], o[order], name="b"), run_of([*x, *x], [*o, *o], name="c")]
    edges = [equal_mass_edges(run) for run in runs]
    assert edges[0].tolist() == edges[1].tolist()
    edges[2] = edges[0]  # twice the rows have other ranks
    sums = [bin_sums(run, find_clusters(run), e).sum(axis=0) for run, e in zip(runs, edges, strict=True)]
    for statistic in STATISTICS:
        first, shuffled, twice = (float(statistic(part)) for part in sums)
        if statistic is maximum_calibration_error:
            first, shuffled, twice = (float(statistic(part, least=2)) for part in sums)
        assert shuffled == pytest.approx(first, rel=1e-12)
        if statistic is debiased_squared_error:
            assert abs(twice - first) > 1e-3
        else:
            assert twice == pytest.approx(first, rel=1e-12)


def test_oracle_15_the_brier_score_of_few_forecasts_has_three_parts():
    rng = np.random.default_rng(6)
    x = rng.choice([0.1, 0.3, 0.7, 0.95], 500)
    o = (rng.random(500) < 0.5).astype(float)
    sums = summed(x, o, [0.2, 0.5, 0.9])
    assert float(within_bin(sums)) == pytest.approx(0, abs=1e-14)
    three = reliability(sums) - resolution(sums) + uncertainty(sums)
    assert float(three) == pytest.approx(np.mean((x - o) ** 2), rel=1e-12)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.lists(st.floats(0.01, 0.99), max_size=6, unique=True).map(sorted),
)
@settings(max_examples=150, deadline=None)
def test_the_brier_score_is_the_sum_of_its_four_parts(pairs, edges):
    x, o = np.array(pairs, float).T
    sums = summed(x, o, edges)
    brier = np.mean((x - o) ** 2)
    assert float(top1_brier(sums)) == pytest.approx(brier, abs=1e-14)
    parts = reliability(sums) - resolution(sums) + uncertainty(sums) + within_bin(sums)
    assert float(parts) == pytest.approx(brier, abs=1e-14)
    assert float(expected_calibration_error(sums)) >= abs(x.mean() - o.mean()) - 1e-14
    assert float(maximum_calibration_error(sums, 1)) >= float(expected_calibration_error(sums)) - 1e-14
    # The parts from the tokens themselves.
    bins = np.searchsorted(edges, x, side="right")
    inner = sum(n * (x[bins == b].var() - 2 * np.cov(x[bins == b], o[bins == b], bias=True)[0, 1])
                for b in set(bins.tolist()) if (n := (bins == b).sum()))  # fmt: skip
    assert float(within_bin(sums)) == pytest.approx(inner / len(x), abs=1e-14)
    accuracy = np.array([o[bins == b].mean() for b in bins])
    assert float(resolution(sums)) == pytest.approx(accuracy.var(), abs=1e-14)


def test_the_maximum_needs_enough_tokens_in_a_bin():
    sums = np.zeros((4, 5))
    sums[0, :3] = (99, 50, 0)
    sums[1, :3] = (100, 50, 60)
    sums[2, :3] = (500, 300, 280)
    assert float(maximum_calibration_error(sums)) == pytest.approx(0.1)
    assert float(maximum_calibration_error(sums, 99)) == pytest.approx(50 / 99)
    assert float(maximum_calibration_error(sums, 101)) == pytest.approx(0.04)
    assert np.isnan(float(maximum_calibration_error(sums, 501)))
    assert np.isnan(maximum_noise(sums, 501))
    assert float(maximum_calibration_error(sums, 0)) == pytest.approx(50 / 99)  # an empty bin has no gap
    assert np.isnan([float(maximum_calibration_error(0 * sums, 0)), maximum_noise(0 * sums, 0)]).all()
    assert maximum_calibration_error(np.stack([sums, sums[:1].repeat(4, axis=0)])).tolist() == pytest.approx(
        [0.1, np.nan], nan_ok=True
    )


def test_the_debiased_error_by_hand():
    # Two bins: 3 tokens, gap .5 - 2/3 = -1/6, noise (2/9) / 2; and 1 token, which has no variance to estimate.
    sums = summed([0.4, 0.5, 0.6, 0.9], [1, 1, 0, 1], [0.8])
    assert float(debiased_squared_error(sums)) == pytest.approx(0.75 * (1 / 36 - 1 / 9))
    assert np.isnan(float(debiased_squared_error(sums[1:])))


def test_the_debiased_error_is_zero_on_average_for_a_calibrated_model():
    rng = np.random.default_rng(7)
    x, _ = draw(rng, 500)
    o = rng.random((3000, 500)) < x
    errors = debiased_squared_error(np.array([summed_fast(x, row) for row in o]))
    plain = reliability(np.array([summed_fast(x, row) for row in o]))
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(3000)
    assert (errors < 0).any()
    assert plain.mean() > 50 * abs(errors.mean())
    # An over-confident model: the mean is the true Σ n_b/N gap_b².
    true = x**1.5
    o = rng.random((3000, 500)) < true
    errors = debiased_squared_error(np.array([summed_fast(x, row) for row in o]))
    expected = float(reliability(summed(x, true, equal_width_edges())))
    assert errors.mean() == pytest.approx(expected, abs=4 * errors.std() / np.sqrt(3000))


def summed_fast(x, o, edges=None):
    """Return the same as `summed`, quickly enough for thousands."""
    edges = equal_width_edges() if edges is None else edges
    bins = np.searchsorted(edges, x, side="right")
    return np.stack([np.bincount(bins, w, len(edges) + 1) for w in (x**0, x, o * 1.0, x * x, x * o)], axis=-1)


def test_figures_are_the_same_one_by_one_and_together():
    rng = np.random.default_rng(8)
    stack = np.array([[summed(*draw(rng, 900), equal_width_edges()) for _ in range(3)] for _ in range(2)])
    for statistic in STATISTICS:
        together = statistic(stack)
        assert together.shape == (2, 3)
        assert together.tolist() == [[float(statistic(sums)) for sums in row] for row in stack]


def test_a_bootstrap_of_each_figure_covers_it():
    rng = np.random.default_rng(9)
    sums = np.array([summed_fast(*draw(rng, 200)) for _ in range(30)])
    for statistic in STATISTICS:
        found = bootstrap(sums, statistic)
        assert found.interval.low < found.interval.high


# Noise


@pytest.mark.parametrize(("count", "bins", "published"), [(500, 15, 0.049), (2000, 15, 0.0245), (10_000, 15, 0.0111),
                                                          (500, 100, 0.126), (2000, 100, 0.063)])  # fmt: skip
def test_the_noise_floor_is_what_a_calibrated_model_shows(count, bins, published):
    rng = np.random.default_rng(count)
    x, _ = draw(rng, count)
    edges = equal_width_edges(bins)
    sums = np.array([summed_fast(x, rng.random(count) < x, edges) for _ in range(400)])
    simulated = expected_calibration_error(sums)
    floor = expected_noise(sums[0])
    # Bins with few tokens are not normal: with 5 tokens a bin the formula is 2 % high.
    assert floor == pytest.approx(simulated.mean(), rel=0.02 if count > 20 * bins else 0.04)
    assert floor == pytest.approx(published, rel=0.06)


def test_the_noise_of_the_maximum_is_what_a_calibrated_model_shows():
    rng = np.random.default_rng(10)
    for count, least in ((500, 1), (2000, 100), (20_000, 100)):
        x, _ = draw(rng, count)
        sums = np.array([summed_fast(x, rng.random(count) < x) for _ in range(1000)])
        simulated = maximum_calibration_error(sums, least)
        assert maximum_noise(sums[0], least) == pytest.approx(simulated.mean(), rel=0.03)
        if count == 500:
            assert simulated.mean() == pytest.approx(0.185, rel=0.06)


def test_the_expected_maximum_in_closed_form():
    one = np.array([[400, 200, 200, 100, 100.0]])  # s = √100 / 400 = .025
    assert maximum_noise(one) == pytest.approx(0.025 * np.sqrt(2 / np.pi), rel=1e-9)
    assert maximum_noise(one.repeat(2, axis=0)) == pytest.approx(0.05 / np.sqrt(np.pi), rel=1e-9)
    # One bin far noisier than the other: the maximum is nearly always its own.
    calm = np.array([[1e12, 5e11, 5e11, 2.5e11, 2.5e11]])
    assert maximum_noise(np.concatenate([one, calm])) == pytest.approx(0.025 * np.sqrt(2 / np.pi), rel=1e-4)
    # Fifteen unequal ones, as a sum over a fine grid of t.
    deviations = np.linspace(0.01, 0.05, 15)
    n = 0.25 / deviations**2  # of confidence one half
    t = (np.arange(20_000) + 0.5) * 2e-5
    within = np.array([math.prod(math.erf(value / (s * math.sqrt(2))) for s in deviations) for value in t.tolist()])
    many = np.column_stack([n, n / 2, n / 2, n / 4, n / 4])
    assert maximum_noise(many, 1) == pytest.approx((1 - within).sum() * 2e-5, rel=1e-8)


def test_rounding_makes_no_negative_variance():
    sums = np.array([[300, 300 - 1e-13, 300, 300, 300.0]])
    assert sums[0, 1] < sums[0, 3]
    assert expected_noise(sums) == maximum_noise(sums) == 0.0


# Degenerate runs


def test_all_right_and_certain(run_of):
    run = run_of([1.0] * 150, np.ones(150))
    edges = equal_mass_edges(run)
    assert len(edges) == 0
    for cuts in (edges, equal_width_edges()):
        sums = bin_sums(run, find_clusters(run), cuts).sum(axis=0)
        assert [float(statistic(sums)) for statistic in STATISTICS] == [0.0] * len(STATISTICS)
        assert expected_noise(sums) == 0.0
        assert maximum_noise(sums) == 0.0


def test_one_token(run_of):
    run = run_of([0.25], [1])
    clusters = find_clusters(run)
    assert equal_mass_edges(run).tolist() == []
    sums = bin_sums(run, clusters, equal_width_edges())
    total = sums.sum(axis=0)
    assert float(expected_calibration_error(total)) == 0.75
    assert np.isnan(float(maximum_calibration_error(total)))
    assert float(maximum_calibration_error(total, 1)) == 0.75
    assert np.isnan(float(debiased_squared_error(total)))
    assert float(top1_brier(total)) == float(reliability(total)) == 0.5625
    assert [float(part(total)) for part in (resolution, uncertainty, within_bin)] == [0.0, 0.0, 0.0]
    assert expected_noise(total) == pytest.approx(np.sqrt(2 / np.pi * 0.1875))
    assert bootstrap(sums, expected_calibration_error).interval.low is None
    table = bin_table(sums, equal_width_edges())
    assert table["count"].sum() == 1
    assert table[["gap_low", "gap_high"]].isna().all(axis=None)


def test_a_table_of_bins_by_hand():
    # Bin 0: two documents (2 of 4 right at mean .3; 0 of 1 at .2). Bin 1: one document. Bin 2: nothing.
    sums = np.array(
        [
            [[4, 1.2, 2, 0.4, 0.6], [2, 1.2, 1, 0.8, 0.6], [0, 0, 0, 0, 0]],
            [[1, 0.2, 0, 0.04, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        ]
    )
    table = bin_table(sums, np.array([0.5, 0.9]))
    assert list(table.columns) == [
        "bin", "low", "high", "count", "mean_confidence", "accuracy", "gap", "gap_low", "gap_high",
    ]  # fmt: skip
    assert table["bin"].tolist() == [0, 1, 2]
    assert table["low"].tolist() == [0.0, 0.5, 0.9]
    assert table["high"].tolist() == [0.5, 0.9, 1.0]
    assert table["count"].tolist() == [5, 2, 0]
    assert table["count"].dtype == np.int64
    assert table["mean_confidence"].tolist() == pytest.approx([0.28, 0.6, np.nan], nan_ok=True)
    assert table["accuracy"].tolist() == pytest.approx([0.4, 0.5, np.nan], nan_ok=True)
    assert table["gap"].tolist() == pytest.approx([-0.12, 0.1, np.nan], nan_ok=True)
    found = jackknife_ratio([-0.8, 0.2], [4, 1])
    assert table["gap_low"].tolist() == pytest.approx([found.interval.low, np.nan, np.nan], nan_ok=True)
    assert table["gap_high"].tolist() == pytest.approx([found.interval.high, np.nan, np.nan], nan_ok=True)


def test_the_interval_of_a_bin_covers_the_true_gap():
    rng = np.random.default_rng(11)
    covered, gap = 0, 0.1
    for _ in range(300):
        effect = rng.normal(0, 0.05, 20)  # documents differ
        x = rng.uniform(0.4, 0.6, (20, 50))
        o = rng.random((20, 50)) < x - gap + effect[:, None]
        sums = np.array([summed(*row, []) for row in zip(x, o, strict=True)])
        row = bin_table(sums, np.empty(0)).iloc[0]
        covered += row["gap_low"] <= gap <= row["gap_high"]
    assert 0.91 <= covered / 300 <= 0.99


# Other libraries


def data(kind):
    rng = np.random.default_rng(12)
    if kind == "random":
        x = (1 + 63 * rng.beta(0.5, 0.9, 4003)) / 64
    elif kind == "exact ties":
        x = rng.integers(0, 65, 4000) / 64  # on edges of 8 or 16 bins, which are exact in binary, 1 among them
    else:
        x = rng.integers(1, 1000, 4000) / 1000  # on edges of 10 bins, which are not
    # The sign of the gap changes at .3 and .6: where bins side by side have one sign, their edge does not matter.
    return x, (rng.random(len(x)) < x + 0.1 * np.sin(10.5 * x)).astype(float)


@pytest.mark.parametrize(("kind", "bins"), [("random", 15), ("random", 100), ("exact ties", 8), ("exact ties", 16)])
def test_netcal_agrees(kind, bins):
    from netcal.metrics import ECE, MCE

    x, o = data(kind)
    sums = summed(x, o, equal_width_edges(bins))
    assert float(expected_calibration_error(sums)) == pytest.approx(ECE(bins).measure(x, o), abs=1e-9)
    assert float(maximum_calibration_error(sums, 1)) == pytest.approx(MCE(bins).measure(x, o), abs=1e-9)
    many = MCE(bins, sample_threshold=100).measure(x, o)
    assert float(maximum_calibration_error(sums)) == pytest.approx(many, abs=1e-9)


def test_netcal_agrees_on_equal_mass(run_of):
    from netcal.metrics import ECE, MCE

    x, o = data("random")
    run = run_of(x, o)
    x, o = stored(run)
    sums = bin_sums(run, find_clusters(run), equal_mass_edges(run)).sum(axis=0)
    for statistic, theirs in ((expected_calibration_error, ECE), (maximum_calibration_error, MCE)):
        error = theirs(15, equal_intervals=False).measure(x, o)
        assert float(statistic(sums)) == pytest.approx(error, abs=1e-9)


def test_netcal_differs_only_by_the_rounding_of_its_edges():
    from netcal.metrics import ECE

    x, o = data("decimal ties")
    theirs = ECE(10).measure(x, o)
    assert abs(theirs - float(expected_calibration_error(summed(x, o, equal_width_edges(10))))) > 1e-5
    # numpy.linspace puts the edges at .30000000000000004, .6000000000000001 and .7000000000000001.
    same = summed(x, o, np.linspace(0, 1, 11)[1:-1])
    assert float(expected_calibration_error(same)) == pytest.approx(theirs, abs=1e-9)


def test_torchmetrics_agrees(tmp_path):
    import torch
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    x, o = (torch.tensor(values) for values in data("random"))
    sums = summed(x, o, equal_width_edges())
    for norm, statistic in (("l1", expected_calibration_error), ("max", maximum_calibration_error)):
        theirs = float(binary_calibration_error(x, o.int(), n_bins=15, norm=norm))
        # They work in float32.
        least = {} if norm == "l1" else {"least": 1}
        assert float(statistic(sums, **least)) == pytest.approx(theirs, abs=2e-7)
    rng = np.random.default_rng(13)
    logits = draw_logits(rng, 3000, 9, scale=0.5)
    drawn = write_drawn(tmp_path / "run", logits, draw_targets(rng, 0.7 * logits), np.arange(3000) // 100)
    sums = bin_sums(drawn.run, find_clusters(drawn.run), equal_width_edges()).sum(axis=0)
    p = torch.softmax(torch.tensor(logits), dim=1)
    assert p.max() < 1 - 1e-6  # what float32 makes 1 they put into a bin of its own
    for norm, statistic in (("l1", expected_calibration_error), ("l2", lambda sums: np.sqrt(reliability(sums)))):
        theirs = float(multiclass_calibration_error(p, torch.tensor(drawn.targets), 9, n_bins=15, norm=norm))
        assert float(statistic(sums)) == pytest.approx(theirs, abs=2e-7)


@pytest.mark.parametrize(("kind", "bins"), [("random", 15), ("random", 10), ("exact ties", 8), ("exact ties", 16)])
def test_relplot_agrees(kind, bins):
    from relplot.metrics import binnedECE

    x, o = data(kind)
    theirs = binnedECE(x, o, nbins=bins)
    sums = summed(x, o, equal_width_edges(bins))
    if kind == "exact ties":  # it keeps a confidence of exactly 1 in a bin of its own
        sums = summed(x, o, [*equal_width_edges(bins), 1.0])
    assert float(expected_calibration_error(sums)) == pytest.approx(theirs, abs=1e-9)


def test_scikit_learn_agrees(run_of):
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    x, o = data("random")
    run = run_of(x, o)
    x, o = stored(run)
    clusters = find_clusters(run)
    for strategy, edges in (("uniform", equal_width_edges()), ("quantile", equal_mass_edges(run))):
        sums = bin_sums(run, clusters, edges)
        table = bin_table(sums, edges)
        hits, confidence = calibration_curve(o, x, n_bins=15, strategy=strategy)
        assert table["accuracy"].tolist() == pytest.approx(hits.tolist(), abs=1e-9)
        assert table["mean_confidence"].tolist() == pytest.approx(confidence.tolist(), abs=1e-9)
        assert float(top1_brier(sums.sum(axis=0))) == pytest.approx(brier_score_loss(o, x), abs=1e-9)


def test_scikit_learn_differs_only_by_the_side_of_ties():
    from sklearn.calibration import calibration_curve

    x, o = data("exact ties")
    hits, _ = calibration_curve(o, x, n_bins=8)
    table = bin_table(summed(x, o, equal_width_edges(8))[None], equal_width_edges(8))
    assert np.abs(table["accuracy"] - hits).max() > 1e-3
    above = np.nextafter(equal_width_edges(8), 2)  # (a, b] is [a', b') for edges one step higher
    assert bin_table(summed(x, o, above)[None], above)["accuracy"].tolist() == pytest.approx(hits.tolist(), abs=1e-9)
