"""Loss by position: bins and their edges, the in-context-learning score, the power-law fit."""

import re

import numpy as np
import pytest
from fake_runs import LN2, Doc, words
from scipy.stats import kstest
from simulations.power_law_truth import CURVES, Kind, fits

from lossprobe.analysis import positions
from lossprobe.analysis.positions import early_minus_late, measure_positions, octave_sql, score_ranges
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.stats.lack_of_fit import shape_p
from lossprobe.analysis.stats.power_law import FoldSums, few_runs_p, fit_power_law, sign_runs

CLOSE = 1e-7  # relative: losses are stored as float32


def document(losses, repeat: bytes = b"a") -> Doc:
    """Return a document whose token t has loss `losses[t - 1]`, in nats."""
    return Doc([repeat] * (len(losses) + 1), ["first_token", *[loss / LN2 for loss in losses]])


def test_bins_and_their_edges(make_run):
    # Token t has t bits: bins 1, 2-3, 4-7, 8-9 have the means 1, 2.5, 5.5, 8.5.
    result = measure_positions(make_run([words("first_token", *range(1, 10)), words("first_token", *range(1, 10))]))
    table = result.table
    assert table["context"].tolist() == [1, 2, 4, 8]
    assert table["context_last"].tolist() == [1, 3, 7, 9]
    assert table["count"].tolist() == [2, 4, 8, 4]
    assert table["clusters"].tolist() == [2, 2, 2, 2]
    assert table["mean_loss_nats"].tolist() == pytest.approx([LN2, 2.5 * LN2, 5.5 * LN2, 8.5 * LN2], rel=CLOSE)
    assert result.every["context"].tolist() == list(range(1, 10))
    assert result.every["mean_loss_nats"].tolist() == pytest.approx([t * LN2 for t in range(1, 10)], rel=CLOSE)
    assert "loss rises by 5.199 nats from 1 to 8-9 tokens of context" in result.finding  # 7.5 bits


def test_powers_of_two_begin_a_bin(make_run):
    run = make_run([words("first_token", 1)])
    edges = run.query(
        f"SELECT e, {octave_sql('2 ** e')} AS at, {octave_sql('2 ** e - 1')} AS below FROM range(1, 40) t(e)"
    )
    assert edges["at"].tolist() == edges["e"].tolist()
    assert edges["below"].tolist() == (edges["e"] - 1).tolist()


@pytest.mark.parametrize("by", ["context", "document-position"])
@pytest.mark.parametrize("bins", ["geometric", "every"])
def test_counts_sum_to_all_scored_tokens(make_run, by, bins):
    docs = [words("first_token", *[1] * length) for length in (1, 5, 30)] + [words("first_token", 2, "masked", 3)]
    result = measure_positions(make_run(docs, context=8), by, bins)
    assert result.axis == {"context": "context", "document-position": "position"}[by]
    assert list(result.table.columns[:2]) == [result.axis, f"{result.axis}_last"]
    assert result.table["count"].sum() == 1 + 5 + 30 + 2
    assert (result.table[result.axis].diff().dropna() > 0).all()


def test_context_starts_again_in_every_window_and_the_place_in_the_document_does_not(make_run):
    # Context 3: tokens 1 2 3 | 4 5 6 | 7 have contexts 1 2 3 | 1 2 3 | 1.
    run = make_run([words("first_token", 1, 2, 3, 4, 5, 6, 7), words("first_token", 9)], context=3)
    by_context = measure_positions(run, "context", "every").table
    assert by_context["context"].tolist() == [1, 2, 3]
    assert by_context["mean_loss_nats"].tolist() == pytest.approx([21 / 4 * LN2, 3.5 * LN2, 4.5 * LN2], rel=CLOSE)
    by_place = measure_positions(run, "document-position", "every").table
    assert by_place["count"].tolist() == [2, 1, 1, 1, 1, 1, 1]
    assert by_place["mean_loss_nats"].tolist() == pytest.approx([b * LN2 for b in (5, 2, 3, 4, 5, 6, 7)], rel=CLOSE)


def test_the_score_of_a_known_curve(make_run):
    # loss(t) = 8 - t/100 nats plus an offset a document: 45-55 averages to 7.5, 450-550 to 3, the offsets cancel.
    curve = 8 - np.arange(1, 601) / 100
    result = measure_positions(make_run([document(curve + offset) for offset in (0.0, 1.0, 3.0)]))
    assert (result.early_range, result.late_range) == ([45, 55], [450, 550])
    assert result.loss50_minus_loss500 == pytest.approx(4.5, rel=CLOSE)
    assert result.loss50_minus_loss500_interval == pytest.approx([4.5, 4.5], rel=1e-6)  # no document differs
    assert "loss50_minus_loss500 +4.5000 nats" in result.finding


def test_the_score_compares_the_same_documents(make_run):
    # Two long documents fall by 1 nat, from 3 to 2 and from 5 to 4. Twenty short ones, hard throughout, end at 60:
    # averaged with them, position 50 would stand at 8.5 and the score at 5.5.
    long = [document(np.where(np.arange(1, 601) < 100, level, level - 1)) for level in (3.0, 5.0)]
    result = measure_positions(make_run([*long, *[document(np.full(60, 9.0))] * 20]))
    assert result.loss50_minus_loss500 == pytest.approx(1.0, rel=1e-6)
    assert "loss50_minus_loss500: over the 2 documents with tokens at both" in result.notes
    low, high = result.loss50_minus_loss500_interval
    assert high - low == pytest.approx(0.0, abs=1e-5)  # float32 losses, times t(1) = 12.7


def test_the_interval_of_the_score_is_a_jackknife_over_documents(make_run):
    falls = np.array([0.5, 1.0, 2.5])
    docs = [document(np.where(np.arange(1, 551) < 100, 4.0, 4.0 - fall)) for fall in falls]
    run = make_run(docs)
    difference, count = early_minus_late(run, find_clusters(run), "context", score_ranges(550))
    # Equal sizes: mean 4/3, standard error s / √3 = 1.040833 / √3, t(2) = 4.302653.
    half = 4.302653 * np.std(falls, ddof=1) / np.sqrt(3)
    assert count == 3
    assert difference.value == pytest.approx(4 / 3, rel=1e-6)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((4 / 3 - half, 4 / 3 + half), rel=1e-5)


@pytest.mark.parametrize(
    ("longest", "late"),
    [(500, None), (501, [499, 501]), (512, [488, 512]), (550, [450, 550]), (700, [450, 550])],
)
def test_the_late_range_ends_with_the_context(make_run, longest, late):
    result = measure_positions(make_run([document(np.ones(longest))] * 2))
    if late is None:
        assert result.loss50_minus_loss500 is None
        assert result.loss50_minus_loss500_interval == (None, None)
        assert result.notes[0] == "loss50_minus_loss500: n/a, the longest context is 500 tokens (501 needed)"
        assert result.finding.endswith("loss50_minus_loss500 n/a")
    else:
        assert result.late_range == late
        assert result.loss50_minus_loss500 == pytest.approx(0.0, abs=CLOSE)


def test_one_document_that_reaches_500_has_a_score_without_interval(make_run):
    result = measure_positions(make_run([document(np.ones(600)), document(np.ones(60))]))
    assert result.loss50_minus_loss500 == pytest.approx(0.0, abs=CLOSE)
    assert result.loss50_minus_loss500_interval == (None, None)


def test_single_positions_end_somewhere(make_run, monkeypatch):
    monkeypatch.setattr(positions, "EVERY_POSITIONS", 8)
    result = measure_positions(make_run([words("first_token", *[1] * 20)] * 2))
    assert result.every["context"].tolist() == list(range(1, 8))
    assert result.table["count"].sum() == 40
    assert "single positions: the first 8 only" in result.notes


A, B, ALPHA = 2.0, 3.0, 0.6


def fold_sums_of(generator, documents: int, length: int = 512, effect: float = 0.0, curve=None) -> FoldSums:
    """Simulate documents whose losses follow a curve, with an effect of the document and a token noise of 1 nat."""
    t = np.arange(1, length + 1)
    bins = np.floor(4 * np.log2(t + 1) + 1e-9).astype(int)
    tokens, nats, places = np.zeros((3, bins.max() + 1, 20))
    for number in range(documents):
        loss = (curve or power_law)(t) + generator.normal(0, effect) + generator.normal(0, 1.0, length)
        for grid, values in ((tokens, 1), (nats, loss), (places, t)):
            np.add.at(grid, (bins, number % 20), values)
    found = tokens.sum(axis=1) > 0
    return FoldSums(tokens[found], nats[found], places[found])


@pytest.mark.parametrize("effect", [pytest.param(0.0, marks=pytest.mark.thorough), 0.35])
def test_the_fit_recovers_a_known_curve_within_its_intervals(effect):
    # 40 corpora of 100 documents, 95 % intervals: 38 of 40 expected, fewer than 33 has a chance below 1 in 500.
    generator = np.random.default_rng(7)
    fits = [fit_power_law(fold_sums_of(generator, 100, effect=effect)) for _ in range(40)]
    for truth, ends in (
        (A, [fit.a_nats_interval for fit in fits]),
        (B, [fit.b_nats_interval for fit in fits]),
        (ALPHA, [fit.alpha_interval for fit in fits]),
    ):
        assert sum(low <= truth <= high for low, high in ends) >= 33
    # The curves themselves are close: the median of 40 estimates has a fifth of one estimate's error.
    assert np.median([fit.alpha for fit in fits]) == pytest.approx(ALPHA, abs=0.05)
    assert np.median([fit.a_nats for fit in fits]) == pytest.approx(A, abs=0.05)


def test_the_fit_of_exact_points_is_exact():
    sums = fold_sums_of(np.random.default_rng(1), 40)
    t = sums.positions / np.where(sums.tokens > 0, sums.tokens, 1)
    exact = A + B * (t + 1.0) ** -ALPHA
    wobble = np.where(np.arange(20) % 2, 1e-6, -1e-6)  # groups must differ a little for an error to exist
    fit = fit_power_law(FoldSums(sums.tokens, (exact + wobble) * sums.tokens, sums.positions))
    assert (fit.a_nats, fit.b_nats, fit.alpha) == pytest.approx((A, B, ALPHA), rel=1e-3)
    assert fit.at(np.array([0.0]))[0] == pytest.approx(A + B, rel=1e-3)


def test_a_run_has_the_fit_of_its_sums(make_run):
    generator = np.random.default_rng(3)
    t = np.arange(1, 257)
    docs = [document(np.abs(A + B * (t + 1.0) ** -ALPHA + generator.normal(0, 0.3, 256))) for _ in range(24)]
    fit = measure_positions(make_run(docs)).fit
    assert fit.a_nats_interval[0] <= A <= fit.a_nats_interval[1]
    assert fit.alpha_interval[0] <= ALPHA <= fit.alpha_interval[1]
    assert fit.residual_runs > 1


def test_there_is_no_fit_where_none_settles(make_run):
    flat = [document(np.full(300, 2.0)) for _ in range(5)]  # no document differs: no weights
    few = [words("first_token", 3, 2, 1) for _ in range(5)]
    for docs in (flat, few):
        result = measure_positions(make_run(docs))
        assert result.fit is None
        assert result.notes[-1].startswith("power law: n/a")


def power_law(t):
    return A + B * (t + 1.0) ** -ALPHA


def misses(curve, seed: int, documents: int = 100) -> int:
    """Return how many of 20 texts of a curve have a fit that misses; documents differ by 0.35 nats, tokens by 1."""
    generator = np.random.default_rng(seed)
    fits = [fit_power_law(fold_sums_of(generator, documents, effect=0.35, curve=curve)) for _ in range(20)]
    return sum(fit is None or fit.misses for fit in fits)


def test_a_true_power_law_does_not_miss():
    assert misses(power_law, 1) <= 1


@pytest.mark.parametrize(
    "curve",
    [
        # The hardest one: runs of residuals show it in one of three.
        pytest.param(lambda t: power_law(t) + 0.1 * np.maximum(0.0, np.log2(t / 64.0)), id="kink"),
        # A step of 0.3 nats, such as at the end of the trained context.
        pytest.param(lambda t: power_law(t) + 0.3 * (t > 128), id="step", marks=pytest.mark.thorough),
        pytest.param(
            lambda t: power_law(t) + 0.3 * np.exp(-(np.log2(t / 64.0) ** 2)), id="bump", marks=pytest.mark.thorough
        ),
        pytest.param(lambda t: A + 1.5 * np.exp(-t / 60.0), id="exponential", marks=pytest.mark.thorough),
    ],
)
def test_another_curve_misses(curve):
    assert misses(curve, 2) >= 16


@pytest.mark.thorough
def test_one_power_law_in_a_hundred_is_called_another_curve():
    kinds = (Kind(documents=30, noise=2.0, slope=0.2), Kind(documents=40, shortest=20))
    assert sum(fit.misses for kind in kinds for fit in fits(CURVES["power law"], kind, 50) if fit is not None) <= 4


def test_the_shape_of_residuals_is_tested_with_their_own_covariance():
    """Residuals that hang together in long runs, as bins of the same documents do, are found at the level asked for."""
    generator = np.random.default_rng(0)
    t = np.arange(30.0)
    tangents = np.stack([np.ones(30), t, t**2], axis=-1)
    groups = generator.normal(size=(2000, 20, 30)).cumsum(axis=-1)  # of 20 groups, each a random walk along the bins
    fit = np.eye(30) - tangents @ np.linalg.pinv(tangents)
    found = []
    for text in groups:
        without = (text.sum(axis=0) - text) / 19
        found.append(shape_p(text.mean(axis=0) @ fit, without @ fit, np.ones(30), tangents))
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert kstest(found, "uniform").pvalue > 0.01
    assert shape_p(text.mean(axis=0), without[:3], np.ones(30), tangents) == 1.0, "too few groups"


def test_a_fit_that_misses_is_not_given(make_run):
    generator = np.random.default_rng(3)
    t = np.arange(1, 513)
    docs = [document(np.abs(power_law(t) + (t > 128) + generator.normal(0, 0.3, 512))) for _ in range(24)]
    result = measure_positions(make_run(docs))
    assert result.fit is None
    says = r"no power law \(p [\de.-]+\): the loss is off it, clearest by .* nats at about .* residuals, \d+ expected"
    assert any(re.fullmatch(says, note) for note in result.notes)


def test_few_runs_have_the_chance_of_random_orders():
    generator = np.random.default_rng(0)
    signs = np.repeat([1.0, -1.0], [9, 14])
    runs = np.array([sign_runs(generator.permutation(signs))[0] for _ in range(20000)])
    for few in ([1.0] * 9 + [-1.0] * 14, [1.0] * 5 + [-1.0] * 7 + [1.0] * 4 + [-1.0] * 7):
        expected = (runs <= sign_runs(np.array(few))[0]).mean()
        assert few_runs_p(np.array(few)) == pytest.approx(expected, abs=0.002)
    assert few_runs_p(np.ones(5)) == 1.0


def test_documents_that_open_alike_are_told(make_run):
    def notes(alike, count=20):
        seconds = [b"Q" if number < alike else b"z%d" % number for number in range(count)]
        docs = [Doc([b"#", second, b"%d" % n, b" a"], ["first_token", 1, 2, 3]) for n, second in enumerate(seconds)]
        return measure_positions(make_run(docs)).notes

    says = "open with the same"
    own_positions = "losses at the first positions are those of this opening"
    assert f"60% of 20 documents open with the same 2 tokens: {own_positions}" in notes(12)
    without = "it has no loss, and the first losses are of what follows it"  # the first token of a document has none
    assert f"100% of 20 documents open with the same token: {without}" in notes(3)
    assert not any(says in note for note in notes(9, 9)), "too few to tell"
    own = [Doc([b"%d" % n, b" a"], ["first_token", 1]) for n in range(20)]
    assert not any(says in note for note in measure_positions(make_run(own)).notes)
    copies = [Doc([b"1", b" a"], ["first_token", 1])] * 20
    assert not any(says in note for note in measure_positions(make_run([*own, *copies], copies=True)).notes)


def test_no_finding_rests_on_a_bin_of_one_document(make_run):
    docs = [words("first_token", 8, 4, 4, 2, 2, 2, 2 + step) for step in (0, 1, 0)]
    docs.append(words("first_token", *[8] * 40))
    finding = measure_positions(make_run(docs)).finding
    assert "from 1 to 4-7 tokens of context" in finding


def test_sign_runs():
    assert sign_runs(np.array([1.0, 1.0, -1.0, -1.0])) == (2, 3.0)  # 1 + 2 · 2 · 2 / 4
    assert sign_runs(np.array([1.0, 2.0, 3.0])) == (1, 1.0)


def test_the_finding_says_when_the_intervals_overlap_and_only_then(make_run):
    # Four documents, losses of context 1 and 2: far apart in the first run, the other way round in half of the second.
    apart = [words("first_token", 8 + spread, 1 + spread) for spread in (0, 1, 0, 1)]
    mixed = [
        words("first_token", 8, 1),
        words("first_token", 1, 8),
        words("first_token", 7, 1),
        words("first_token", 1, 8),
    ]
    assert "intervals" not in measure_positions(make_run(apart, context=8)).finding
    assert "(no more than the intervals allow)" in measure_positions(make_run(mixed, context=8)).finding
    assert "intervals" not in measure_positions(make_run([words("first_token", 8, 1)], context=8)).finding


def test_a_single_bin_is_compared_with_none(make_run):
    result = measure_positions(make_run([words("first_token", 8), words("first_token", 1)]))
    assert result.finding == "a single bin (context 1): nothing to compare it with; loss50_minus_loss500 n/a"
