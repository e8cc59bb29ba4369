"""Effective smoothing: read off runs whose smoothing is known, and held against sums taken straight from the logits."""

import math

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

from lossprobe.analysis.calibration.effective_smoothing import (
    NO_EVIDENCE,
    effective_smoothing,
    interquartile_nats,
    mode_epsilon,
    slope_epsilon,
    tail_epsilon,
    tau_edge,
)
from lossprobe.errors import OutputError
from lossprobe.run.reader import open_run

SPREAD = 2.4  # standard deviation of log p in the tail: 3.2 nats between its quartiles
BINS = 121


@pytest.fixture
def drawn(tmp_path):
    """Write a run of 40 documents from a model's logits and the targets that came."""

    def write(logits, targets, documents=40):
        numbers = document_numbers(np.random.default_rng(9), len(targets), documents)
        return write_drawn(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", logits, targets, numbers).run

    return write


def truth(seed, rows, vocab):
    """Return log p of a likely token and a log-normal tail, a third of the probability on average, and targets."""
    rng = np.random.default_rng(seed)
    tail = rng.beta(1, 2, (rows, 1))
    logits = log_probabilities(SPREAD * rng.standard_normal((rows, vocab))) + np.log(tail)
    likely = np.arange(rows), rng.integers(0, vocab, rows)
    logits[likely] = np.logaddexp(logits[likely], np.log1p(-tail[:, 0]))
    return logits, draw_targets(rng, logits)


def reference(logits, targets):
    """Return slope ε, tail ε, mode ε and the interquartile range from every single probability, without bins."""
    vocab = logits.shape[1]
    log_p = log_probabilities(logits)
    p, target = np.exp(log_p), np.arange(vocab) == targets[:, None]
    x, o = p.max(axis=1) - 1 / vocab, target[np.arange(len(p)), p.argmax(axis=1)] - 1 / vocab
    slope = np.linalg.lstsq(x[:, None], o, rcond=None)[0][0]
    below = p < 10 ** (math.floor(10 * math.log10(0.65 / vocab)) / 10)
    tail = (p[below].sum() - target[below].sum()) / (below.sum() / vocab - target[below].sum())
    counts, edges = np.histogram(log_p / math.log(10), np.arange(-120, 1) / 10)
    mode = vocab * 10 ** ((edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2)
    return 1 - 1 / slope, tail, mode, float(np.subtract(*np.quantile(log_p, [0.75, 0.25])))


@pytest.mark.parametrize("vocab", [64, 257])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_every_estimate_is_what_the_logits_give(drawn, vocab, epsilon):
    logits, targets = truth(3, 2000, vocab)
    logits = smoothed_logits(logits, epsilon)
    found = effective_smoothing(drawn(logits, targets))
    slope, tail, mode, spread = reference(logits, targets)
    assert found.slope_epsilon == pytest.approx(slope, abs=1e-6)
    assert found.tail_epsilon == pytest.approx(tail, abs=1e-9)
    assert found.mode_epsilon == pytest.approx(mode, rel=1e-9)
    assert found.tail_iqr_nats == pytest.approx(spread, abs=0.05)  # interpolated in bins 0.23 nats wide
    assert found.tau == pytest.approx(10 ** (math.floor(10 * math.log10(0.65 / vocab)) / 10), rel=1e-12)


@pytest.mark.parametrize(
    ("vocab", "rows"), [(64, 12_000), (257, 8000), pytest.param(2048, 3000, marks=pytest.mark.thorough)]
)
def test_known_smoothing_is_read_as_what_it_is(drawn, vocab, rows):
    logits, targets = truth(1, rows, vocab)
    for epsilon in (0.05, 0.1, 0.2):
        found = effective_smoothing(drawn(smoothed_logits(logits, epsilon), targets))
        low, high = found.slope_epsilon_interval
        assert low < epsilon < high
        assert found.tail_epsilon == pytest.approx(epsilon, abs=0.012)
        assert found.mode_epsilon == pytest.approx(epsilon, rel=0.2)
        assert found.tail_iqr_nats < 2
        assert found.epsilon == pytest.approx(epsilon, rel=0.2)
        assert found.verdict == f"consistent with smoothing ε ≈ {found.epsilon:.2g}"
        assert found.epsilon == sorted([found.slope_epsilon, found.tail_epsilon, found.mode_epsilon])[1]


@pytest.mark.parametrize(
    ("vocab", "rows"), [(64, 6000), (257, 5000), pytest.param(1024, 1500, marks=pytest.mark.thorough)]
)
def test_models_without_smoothing_show_none(drawn, vocab, rows):
    logits, targets = truth(1, rows, vocab)
    noise = np.random.default_rng(2).standard_normal(logits.shape)
    plain = effective_smoothing(drawn(logits, targets))
    assert plain.slope_epsilon_interval[0] < 0 < plain.slope_epsilon_interval[1]
    assert plain.tail_epsilon == pytest.approx(0.0, abs=0.012)
    models = [tempered_logits(logits, 0.9), tempered_logits(logits, 1.1), logits + noise]
    models += [smoothed_logits(logits, 0.1) + noise, tempered_logits(smoothed_logits(logits, 0.1), 0.9)]
    others = [effective_smoothing(drawn(model, targets)) for model in models]
    for found in [plain, *others]:
        assert found.epsilon is None
        assert found.verdict == NO_EVIDENCE
    for found in (plain, others[0], others[1]):  # of which none has a floor, nor over-confidence that could hide it
        assert f"; spread of log p {found.tail_iqr_nats:.1f} nats, a floor leaves less than 2" in found.finding
        assert found.reason.endswith("if over-confidence has not stretched it") == (found is others[0])


def test_temperature_on_top_of_smoothing_is_taken_for_more_of_it(drawn):
    """What science.md says it can be fooled by: the caveat has to hold, since it is printed."""
    logits, targets = truth(1, 8000, 257)
    found = effective_smoothing(drawn(tempered_logits(smoothed_logits(logits, 0.2), 1.1), targets))
    assert found.epsilon == pytest.approx(0.29, abs=0.02)
    assert "temperature" in found.notes[0]


def test_rows_that_are_often_flat_leave_no_floor_to_see(drawn):
    rng = np.random.default_rng(4)
    logits = draw_logits(rng, 8000, 257)
    found = effective_smoothing(drawn(smoothed_logits(logits, 0.1), draw_targets(rng, logits)))
    assert found.epsilon is None
    assert "spread of log p 2.1 nats, a floor leaves less than 2" in found.reason


def test_a_few_tokens_that_agree_by_chance_are_no_evidence(drawn):
    """One row, right at p = .9 with the rest flat: slope, tail and floor agree at .1, and say nothing."""
    vocab, rows = 64, 6
    logits = np.log(np.full((rows, vocab), 0.1 / (vocab - 1)))
    logits[:, 0] = math.log(0.9)
    found = effective_smoothing(drawn(logits, np.zeros(rows, int), documents=1))
    assert found.tail_epsilon == pytest.approx(0.1 * vocab / (vocab - 1), rel=1e-9)
    assert found.slope_epsilon == pytest.approx(0.1 * vocab / (vocab - 1), rel=1e-6)
    assert found.slope_epsilon_interval == (None, None)
    assert found.epsilon is None
    assert found.reason.endswith("no interval of the slope")


def test_an_interval_that_holds_zero_is_no_evidence(drawn):
    """Twenty tokens, 14 of them the first choice at p = .6, the others the second: ε near .14 on all three counts."""
    vocab, rows = 64, 20
    logits = np.log(np.full((rows, vocab), 0.13 / (vocab - 2)))
    logits[:, 0], logits[:, 1] = math.log(0.6), math.log(0.27)
    targets = (np.arange(rows) % 10 > 6).astype(int)
    found = effective_smoothing(drawn(logits, targets, documents=10))
    estimates = [found.slope_epsilon, found.tail_epsilon, found.mode_epsilon]
    assert max(estimates) < 1.5 * min(estimates)
    assert found.slope_epsilon_interval[0] < 0
    assert found.epsilon is None
    assert found.reason.endswith("the slope's interval holds 0")


def test_smoothing_beyond_what_the_tail_can_tell_is_not_named(drawn):
    logits, targets = truth(1, 4000, 64)
    found = effective_smoothing(drawn(smoothed_logits(logits, 0.6), targets))
    assert found.slope_epsilon == pytest.approx(0.6, abs=0.02)
    assert found.epsilon is None


def test_uniform_predictions_have_no_slope(drawn):
    found = effective_smoothing(drawn(np.zeros((50, 16)), np.arange(50) % 16))
    assert found.slope_epsilon is None
    assert found.slope_epsilon_interval == (None, None)
    assert found.reason.startswith("slope n/a, tail n/a, floor ")
    assert found.reason.endswith("no slope and no tail can be given")


def test_a_run_without_a_histogram_gives_the_slope_only(make_run):
    found = effective_smoothing(make_run([words("first_token", 1, 2, 3), words("first_token", 2, 2)]))
    assert (found.tail_epsilon, found.mode_epsilon, found.tail_iqr_nats, found.epsilon) == (None, None, None, None)


def test_numbers_that_are_not_finite_are_refused(make_run):
    run = make_run([words("first_token", 1), words("first_token", 2)])
    file = run.path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    damaged = pa.array([None, 0.5, None, math.nan], pa.float32())
    pq.write_table(table.set_column(table.column_names.index("top_prob"), "top_prob", damaged), file)
    with pytest.raises(OutputError, match="document 1, token 1: a stored number is not finite"):
        effective_smoothing(open_run(run.path))


def test_hand_made_sums():
    bins = np.zeros((BINS, 3))
    bins[80] = 900, 0.08, 0.03  # below tau: of 10 tokens and 100 entries, nine tenths of the pairs
    bins[120] = 100, 9.92, 9.97
    assert tail_epsilon(bins, 100, -22) == pytest.approx((0.08 - 0.03) / (9 - 0.03), rel=1e-12)
    assert tail_epsilon(bins, 100, -41) is None, "the edge is that of the bin's end"
    assert tail_epsilon(bins, 100, -40) is not None
    assert mode_epsilon(bins[:, 0], 100) == pytest.approx(100 * 10**-4.05, rel=1e-12)
    assert mode_epsilon(np.eye(BINS)[0], 100) is None


def test_spread_counts_the_pairs_that_have_no_bin_of_their_own():
    pairs = np.zeros(BINS)
    pairs[[0, 50, 51]] = 24, 26, 50
    # A quarter of 100 pairs lies 1/26 into bin 50, three quarters half into bin 51.
    assert interquartile_nats(pairs) == pytest.approx((1.5 - 1 / 26) / 10 * math.log(10), rel=1e-12)
    pairs[[0, 51]] = 25, 49
    assert interquartile_nats(pairs) is None
    assert interquartile_nats(np.zeros(BINS)) is None


def test_a_slope_of_zero_or_less_has_no_epsilon():
    wrong = {"tokens": 1.0, "confidence": 0.75, "correct": 0.0, "confidence2": 0.5625, "confidence_correct": 0.0}
    right = wrong | {"correct": 1.0, "confidence_correct": 0.75}
    assert slope_epsilon({name: np.array([value] * 2) for name, value in wrong.items()}, 2) == (None, (None, None))
    mixed = {name: np.array([wrong[name], right[name], right[name]]) for name in wrong}
    epsilon, interval = slope_epsilon(mixed, 2)
    # The slopes of the single tokens are -2, 2 and 2, that of all is 2/3.
    assert epsilon == pytest.approx(1 - 3 / 2)
    assert interval == (None, None), "the slope may be 0, and ε has no lower end"


@pytest.mark.parametrize(
    ("vocab", "edge"), [(2, -5), (64, -20), (65, -20), (2048, -35), (50257, -49), (65_000, -50), (151_936, -54)]
)
def test_tau_is_the_last_edge_up_to_065_over_the_vocabulary(vocab, edge):
    assert tau_edge(vocab) == edge
    assert 10 ** (edge / 10) <= 0.65 / vocab * (1 + 1e-9) < 10 ** ((edge + 1) / 10)
