"""Two runs of the same tokens: every number against plain float64 arithmetic on all rows, and against the truth."""

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
from fake_runs import LN2, words
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from lossprobe.analysis.compare.sums import ChangeSizes, LossPairs, Moments
from lossprobe.analysis.compare.tokens import compare_runs
from lossprobe.analysis.stats.power import DETECTABLE, tokens_to_decide, tokens_to_detect
from lossprobe.errors import OutputError
from lossprobe.run.reader import open_run

ROWS, VOCAB, DOCUMENTS = 1500, 48, 25


class World:
    """Contexts and targets drawn from a seed, and runs of models of them."""

    def __init__(self, folder, seed=1, rows=ROWS, documents=DOCUMENTS, vocab=VOCAB):
        rng = np.random.default_rng(seed)
        self.folder, self.documents = folder, document_numbers(rng, rows, documents)
        self.logits = draw_logits(rng, rows, vocab)
        self.targets = draw_targets(rng, self.logits)
        self.context = 1 + np.arange(rows) - np.searchsorted(self.documents, self.documents)

    def run(self, logits, name="model", **choices):
        folder = self.folder / str(len(list(self.folder.iterdir())))
        return write_drawn(folder, logits, self.targets, self.documents, name=name, **choices).run

    def losses(self, logits):
        nats = -log_probabilities(logits)[np.arange(len(self.targets)), self.targets]
        return nats.astype(np.float32).astype(float)  # as stored

    def right(self, logits):
        return (logits.argmax(axis=1) == self.targets).astype(float)


@pytest.fixture
def drawn(tmp_path):
    return World(tmp_path)


@pytest.fixture
def noisy(drawn):
    """Return the logits of another model: on every tenth row quite different, on every 50th all-knowing."""
    noise = np.random.default_rng(2).standard_normal(drawn.logits.shape)
    logits = smoothed_logits(drawn.logits, 0.1) + np.where(np.arange(ROWS) % 10, 0.5, 4.0)[:, None] * noise
    logits[np.arange(5, ROWS, 50), drawn.targets[5::50]] += 9.0
    return logits


def leave_one_out(numbers, groups):
    """Return the mean, its jackknife standard error and its t interval, by leaving out one group after the other."""
    if len(np.unique(groups)) < 2:
        return numbers.mean(), math.nan, [math.nan, math.nan]
    rest = np.array([numbers[groups != group].mean() for group in np.unique(groups)])
    count = len(rest)
    error = math.sqrt((count - 1) / count * ((rest - rest.mean()) ** 2).sum())
    half = student.ppf(0.975, count - 1) * error
    return numbers.mean(), error, [numbers.mean() - half, numbers.mean() + half]


def test_every_number_is_that_of_the_rows(drawn, noisy):
    found = compare_runs(drawn.run(drawn.logits, "plain"), drawn.run(noisy, "noisy"))
    one, other = drawn.losses(drawn.logits), drawn.losses(noisy)
    d = other - one
    mean, error, interval = leave_one_out(d, drawn.documents)
    assert (found.first, found.second, found.counts.tokens, found.counts.left_out) == ("plain", "noisy", ROWS, 0)
    assert (found.clusters, found.interval_unit) == (DOCUMENTS, "document")
    assert found.difference.mean_difference_nats == pytest.approx(mean, abs=1e-8)
    assert found.difference.mean_difference_nats_interval == pytest.approx(interval, abs=1e-8)
    assert found.difference.perplexity_ratio == pytest.approx(math.exp(other.mean()) / math.exp(one.mean()), rel=1e-7)
    assert found.difference.perplexity_ratio_interval == pytest.approx(np.exp(interval).tolist(), rel=1e-7)
    right, _, right_interval = leave_one_out(drawn.right(noisy) - drawn.right(drawn.logits), drawn.documents)
    assert found.difference.accuracy_difference == pytest.approx(right, abs=1e-12)
    assert found.difference.accuracy_difference_interval == pytest.approx(right_interval, abs=1e-12)
    assert found.difference.correlation == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-7)
    assert found.difference.sd_difference_nats == pytest.approx(d.std(ddof=1), rel=1e-7)
    assert found.evidence.design_effect == pytest.approx(error**2 / (d.var(ddof=1) / ROWS), rel=1e-6)
    assert found.evidence.p_value == pytest.approx(2 * student.sf(abs(mean) / error, DOCUMENTS - 1), rel=1e-5)
    assert found.evidence.minimum_detectable_nats == pytest.approx(2.8016 * error, rel=1e-5)
    needed = 2.801585**2 * d.var(ddof=1) * found.evidence.design_effect / math.log(1.01) ** 2
    assert found.evidence.tokens_for_one_percent == pytest.approx(needed, abs=1.5)
    assert found.counts.forgotten == ((one < 1) & (other > 3)).sum() > 0
    assert found.counts.learned == ((one > 3) & (other < 1)).sum() > 0
    assert not found.identical


def test_positions_are_octaves_of_the_first_runs_context(drawn, noisy):
    table = compare_runs(drawn.run(drawn.logits), drawn.run(noisy)).by_position
    d = drawn.losses(noisy) - drawn.losses(drawn.logits)
    assert table["context"].tolist() == [2**k for k in range(len(table))]
    assert table["context_last"].tolist() == [min(2 ** (k + 1) - 1, drawn.context.max()) for k in range(len(table))]
    assert table["tokens"].sum() == ROWS
    assert table["clusters"].min() == 1, "the longest document alone reaches the last octave"
    for row in table.to_dict("records"):
        chosen = (drawn.context >= row["context"]) & (drawn.context <= row["context_last"])
        mean, _, interval = leave_one_out(d[chosen], drawn.documents[chosen])
        assert [row["tokens"], row["clusters"]] == [chosen.sum(), len(np.unique(drawn.documents[chosen]))]
        assert [row[name] for name in ("mean_difference_nats", "low", "high")] == pytest.approx(
            [mean, *interval], abs=1e-7, nan_ok=True
        )


def test_windows_may_differ_and_a_note_says_so(drawn, noisy):
    runs = [drawn.run(drawn.logits), drawn.run(noisy, context=8)]
    note = "the runs differ in context (1024 and 8), stride (1024 and 8); positions are the first one's"
    found = compare_runs(*runs)
    assert note in found.notes
    assert found.by_position["context_last"].max() == drawn.context.max()
    assert compare_runs(*runs[::-1]).by_position["context_last"].max() == 8


def test_a_run_against_itself_differs_in_nothing(drawn):
    run = drawn.run(drawn.logits)
    found = compare_runs(run, run)
    assert found.identical
    assert (found.first, found.second) == ("model #1", "model #2")
    assert (found.difference.mean_difference_nats, found.difference.mean_difference_nats_interval) == (0.0, (0.0, 0.0))
    assert (found.difference.perplexity_ratio, found.difference.perplexity_ratio_interval) == (1.0, (1.0, 1.0))
    assert (found.difference.accuracy_difference, found.difference.accuracy_difference_interval) == (0.0, (0.0, 0.0))
    assert (found.difference.sd_difference_nats, found.evidence.minimum_detectable_nats, found.evidence.p_value) == (
        0.0,
        0.0,
        1.0,
    )
    assert found.difference.correlation == pytest.approx(1.0, abs=1e-15)
    assert (found.evidence.design_effect, found.evidence.tokens_for_one_percent, found.evidence.tokens_to_decide) == (
        None,
        None,
        None,
    )
    assert (found.counts.forgotten, found.counts.learned) == (0, 0)
    assert found.verdict == "no difference shown"
    several = found.by_position[found.by_position["clusters"] > 1]
    assert len(several) >= 6
    assert (several[["mean_difference_nats", "low", "high"]] == 0.0).all(axis=None)
    assert found.cumulative["share_of_change"].isna().all()
    assert (found.scatter["first_low_nats"] == found.scatter["second_low_nats"]).all()
    assert found.finding == "model #2 − model #1: identical on 1,500 tokens"


def test_one_token_that_differs_in_the_last_bit_is_not_identical(drawn):
    run, other = drawn.run(drawn.logits), drawn.run(drawn.logits)
    rewrite(other, 700, lambda loss: np.nextafter(np.float32(loss), np.float32(99)))
    found = compare_runs(run, open_run(other.path))
    assert not found.identical
    assert 0 < found.difference.mean_difference_nats < 1e-8
    assert found.cumulative["share_of_change"].iloc[-1] == 1.0


def test_swapping_the_runs_flips_the_signs(drawn, noisy):
    runs = drawn.run(drawn.logits, "plain"), drawn.run(noisy, "noisy")
    one, other = compare_runs(*runs), compare_runs(*runs[::-1])
    assert one.difference.mean_difference_nats == -other.difference.mean_difference_nats
    assert one.difference.mean_difference_nats_interval == pytest.approx(
        [-end for end in other.difference.mean_difference_nats_interval[::-1]], 1e-14
    )
    assert one.difference.accuracy_difference == -other.difference.accuracy_difference
    assert one.difference.perplexity_ratio == pytest.approx(1 / other.difference.perplexity_ratio, rel=1e-14)
    numbers, swapped = (vars(each.difference) | vars(each.evidence) for each in (one, other))
    for name in ("correlation", "sd_difference_nats", "design_effect", "p_value", "minimum_detectable_nats"):
        assert numbers[name] == pytest.approx(swapped[name], rel=1e-12)
    assert (one.counts.forgotten, one.counts.learned) == (other.counts.learned, other.counts.forgotten)
    assert (one.verdict, other.verdict) == ("noisy is worse", "plain is better")
    both = one.scatter.merge(
        other.scatter, left_on=["first_low_nats", "second_low_nats"], right_on=["second_low_nats", "first_low_nats"]
    )
    assert len(both) == len(one.scatter) == len(other.scatter)
    assert (both["count_x"] == both["count_y"]).all()


def test_the_finding_and_the_table(drawn, noisy):
    found = compare_runs(drawn.run(drawn.logits, "plain"), drawn.run(noisy, "noisy"))
    low, high = found.difference.mean_difference_nats_interval
    assert found.finding == (
        f"noisy − plain: {found.difference.mean_difference_nats:+.4f} nats [{low:+.4f}, {high:+.4f}], perplexity × "
        f"{found.difference.perplexity_ratio:.4f}: noisy is worse"
    )
    table = found.table.set_index("measure")
    assert list(found.table) == ["measure", "value", "low", "high", "unit"]
    assert table.loc["mean_difference_nats", ["value", "low", "high"]].tolist() == [
        found.difference.mean_difference_nats,
        low,
        high,
    ]
    assert table.loc["perplexity_ratio", "high"] == found.difference.perplexity_ratio_interval[1]
    assert table.loc["accuracy_difference", "low"] == found.difference.accuracy_difference_interval[0]
    assert table["value"].drop("tokens_to_decide").notna().all()
    assert math.isnan(table.loc["tokens_to_decide", "value"])


def test_what_is_not_shown_says_how_many_tokens_would_decide(drawn):
    noise = 0.01 * np.random.default_rng(3).standard_normal(drawn.logits.shape)
    found = compare_runs(drawn.run(drawn.logits, "plain"), drawn.run(drawn.logits + noise, "noisy"))
    low, high = found.difference.mean_difference_nats_interval
    assert low < 0 < high
    assert found.verdict == "no difference shown"
    assert found.evidence.p_value > 0.05
    assert found.evidence.tokens_to_decide > ROWS
    assert found.finding.endswith(
        f"; about {found.evidence.tokens_to_decide:,} tokens would decide if the mean stayed as it is"
    )


@given(
    mean=st.floats(1e-4, 1.0),
    ratio=st.floats(0.01, 30.0),
    tokens=st.integers(100, 10**7),
    clusters=st.integers(2, 2000),
)
def test_so_many_tokens_are_just_enough(mean, ratio, tokens, clusters):
    error = mean / ratio
    needed = tokens_to_decide(-mean, error, tokens, clusters)
    assert needed == tokens_to_decide(mean, error, tokens, clusters)
    if needed is None:
        assert mean - student.ppf(0.975, clusters - 1) * error > 0
        return

    def low(count):
        factor = count / tokens
        return mean - student.ppf(0.975, factor * clusters - 1) * error / math.sqrt(factor)

    assert low(needed + 1) > 0
    assert needed == tokens or low(needed - 1) < 1e-9


def test_numbers_of_tokens_that_nothing_would_reach():
    assert tokens_to_decide(0.0, 0.1, 100, 5) is None
    assert tokens_to_decide(0.1, 0.0, 100, 5) is None
    assert tokens_to_decide(None, None, 100, 1) is None
    assert tokens_to_decide(1e-300, 1.0, 100, 5) is None
    assert tokens_to_detect(0.1, None, 100) is None
    assert tokens_to_detect(0.1, 0.0, 100) is None
    assert pytest.approx(2.801585, abs=1e-6) == DETECTABLE


def test_a_single_document_has_no_interval(tmp_path):
    drawn = World(tmp_path, rows=300, documents=1)
    found = compare_runs(drawn.run(drawn.logits), drawn.run(smoothed_logits(drawn.logits, 0.2)))
    assert found.difference.mean_difference_nats is not None
    assert (
        found.difference.mean_difference_nats_interval == found.difference.accuracy_difference_interval == (None, None)
    )
    assert found.difference.perplexity_ratio_interval == (None, None)
    assert (found.evidence.p_value, found.evidence.design_effect, found.evidence.minimum_detectable_nats) == (
        None,
        None,
        None,
    )
    assert (found.evidence.tokens_for_one_percent, found.evidence.tokens_to_decide) == (None, None)
    assert found.verdict == "no test was possible"
    assert " nats no interval, perplexity" in found.finding
    assert found.table["low"].isna().all()
    assert any("no interval can be given" in note for note in found.notes)


def test_a_long_single_document_is_cut_into_blocks(tmp_path):
    drawn = World(tmp_path, rows=9000, documents=1, vocab=8)
    other = tempered_logits(drawn.logits, 0.7)
    found = compare_runs(drawn.run(drawn.logits), drawn.run(other))
    blocks = np.minimum(drawn.context // 4096, 1)
    _, _, interval = leave_one_out(drawn.losses(other) - drawn.losses(drawn.logits), blocks)
    assert (found.interval_unit, found.clusters) == ("block", 2)
    assert found.difference.mean_difference_nats_interval == pytest.approx(interval, abs=1e-7)


def test_only_tokens_that_both_scored_count(make_run):
    runs = [
        make_run([words("first_token", 1, 3), words("first_token", last), words("first_token", 5)], name=name)
        for name, last in (("one", 2), ("other", "masked"))
    ]
    found = compare_runs(*runs)
    assert (found.counts.tokens, found.counts.left_out, found.clusters) == (3, 1, 2)
    assert "1 token that only one of them scored left out" in found.notes
    assert found.scatter["count"].sum() == 3
    assert found.identical


def test_nothing_in_common_is_no_number(make_run):
    found = compare_runs(*(make_run([words("first_token", *bits)]) for bits in ((1, "masked"), ("masked", 2))))
    assert (found.counts.tokens, found.counts.left_out, found.identical) == (0, 2, False)
    assert (
        found.difference.mean_difference_nats,
        found.difference.perplexity_ratio,
        found.difference.accuracy_difference,
    ) == (None, None, None)
    assert (found.difference.correlation, found.difference.sd_difference_nats, found.evidence.p_value) == (
        None,
        None,
        None,
    )
    assert found.by_position.empty
    assert found.scatter.empty
    assert found.cumulative["share_of_change"].isna().all()
    assert found.finding == "model #2 − model #1: no token that both scored"
    assert "no token that both scored: there is no number to give" in found.notes


def test_one_token_in_common_has_a_mean_and_no_more(make_run):
    found = compare_runs(*(make_run([words("first_token", bits)]) for bits in (1, 3)))
    assert found.difference.mean_difference_nats == pytest.approx(2 * LN2, rel=1e-6)
    assert (found.difference.correlation, found.difference.sd_difference_nats, found.evidence.design_effect) == (
        None,
        None,
        None,
    )


def rewrite(run, row, change):
    """Change the stored loss of a row."""
    file = run.path / "tokens/part-00000.parquet"
    table = pq.read_table(file)
    losses = table["loss_nats"].to_pylist()
    losses[row] = change(losses[row])
    index = table.schema.get_field_index("loss_nats")
    field = table.schema.field(index)
    pq.write_table(table.set_column(index, field, pa.array(losses, field.type)), file)


@pytest.mark.parametrize("damaged", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_not_finite_are_refused(drawn, damaged, which):
    runs = [drawn.run(drawn.logits), drawn.run(drawn.logits)]
    rewrite(runs[which], 700, lambda _: damaged)
    with pytest.raises(OutputError, match="a stored number is not finite"):
        compare_runs(*(open_run(run.path) for run in runs))


def test_the_most_changed_tokens_carry_what_sorting_says():
    rng = np.random.default_rng(4)
    d = rng.standard_normal(20_000) * rng.exponential(size=20_000) ** 3
    d[:3000] = 0.0
    d[3000:3010] = [1e-13, 1e5, -1e5, 3e-12, 2.0**-40, 2.0**14, 1, -1, 2, 4]
    sizes = ChangeSizes()
    for part in np.array_split(d, 7):
        sizes.add(part)
    table = sizes.table()
    largest = np.sort(np.abs(d))[::-1].cumsum()
    for share, change in table.to_numpy():
        assert change == pytest.approx(largest[round(share * len(d)) - 1] / largest[-1], abs=0.002)
    assert table["share_of_tokens"].tolist() == [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert table["share_of_change"].iloc[-1] == 1.0


def test_pairs_of_losses_are_counted_in_quarter_nats():
    losses = np.array([[0.0, 0.24, 0.25, 19.99, 20.0, 700.0, 3.1], [0.0, 0.26, 0.25, 0.5, 31.0, 20.0, 2.9]])
    pairs = LossPairs()
    pairs.add(losses)
    pairs.add(losses[:, :2])
    assert pairs.table().to_numpy().tolist() == [
        [0.0, 0.0, 0.25, 2.0],
        [0.0, 0.25, 0.25, 2.0],
        [0.25, 0.25, 0.25, 1.0],
        [3.0, 2.75, 0.25, 1.0],
        [19.75, 0.5, 0.25, 1.0],
        [20.0, 20.0, 0.25, 2.0],
    ]


def test_moments_do_not_cancel():
    rng = np.random.default_rng(5)
    losses = 1e6 + rng.standard_normal((2, 5000))
    losses[1] = losses[0] + 1e-3 * rng.standard_normal(5000)
    moments = Moments()
    for part in np.array_split(losses, 11, axis=1):
        moments.add(part)
    moments.add(losses[:, :0])
    assert moments.count == 5000
    assert moments.mean == pytest.approx([losses[0].mean(), losses[1].mean(), (losses[1] - losses[0]).mean()])
    assert moments.sd_difference == pytest.approx((losses[1] - losses[0]).std(ddof=1), rel=1e-12)
    assert moments.correlation == pytest.approx(np.corrcoef(losses)[0, 1], abs=1e-12)


def kinds_of_documents(seed, documents=30, rows=40, vocab=16):
    """Return logits of two models and the documents: the second has noise on its logits, in some documents more."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(documents), rows)
    logits = draw_logits(rng, documents * rows, vocab)
    spread = 0.5 * rng.uniform(0.1, 1.5, documents)[number][:, None]
    return number, logits, logits + spread * rng.standard_normal(logits.shape)


def divergence(logits, other):
    """Return KL(p‖q) of each row: the difference to expect where the tokens are drawn from p."""
    log_p, log_q = log_probabilities(logits), log_probabilities(other)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=1)


@pytest.mark.thorough
def test_the_interval_covers_what_is_true_of_all_documents(tmp_path):
    """Noise of known size on the logits costs KL on average; 95 % of the intervals should hold it."""
    truth = np.mean([divergence(*kinds_of_documents(seed)[1:]).mean() for seed in range(1000, 1150)])
    held, effects, seeds = 0, [], 20
    for seed in range(seeds):
        documents, logits, other = kinds_of_documents(seed)
        targets = draw_targets(np.random.default_rng([seed, 1]), logits)
        runs = [
            write_drawn(tmp_path / f"{seed}-{name}", z, targets, documents).run
            for name, z in (("plain", logits), ("noisy", other))
        ]
        found = compare_runs(*runs)
        low, high = found.difference.mean_difference_nats_interval
        held += low <= truth <= high
        effects.append(found.evidence.design_effect)
    assert 0.01 < truth < 0.2
    assert held >= 17, "19 of 20 are expected; 16 or fewer come in 1.6 % of all worlds"
    assert np.mean(effects) > 1.3, "documents differ, so that tokens are not independent"


def test_a_difference_may_be_small_and_certain(make_run):
    runs = [make_run([words("first_token", bits + step) for bits in (2, 3, 4)]) for step in (0, 1e-5)]
    found = compare_runs(*runs)
    assert found.difference.mean_difference_nats < 1e-5
    assert (found.verdict, compare_runs(*runs[::-1]).verdict) == ("model #2 is worse", "model #2 is better")


def test_a_difference_of_rounding_is_none_of_the_models(make_run):
    """One model on two processors: each loss is larger by about 7e-7 nats, beyond all noise."""
    runs = [make_run([words("first_token", bits + step) for bits in (2, 3, 4)]) for step in (0, 1e-6)]
    found = compare_runs(*runs)
    mean = found.difference.mean_difference_nats
    assert 5e-7 < mean < 1e-6
    assert found.difference.mean_difference_nats_interval.low > 0.0
    assert (found.verdict, found.identical, found.evidence.tokens_to_decide) == ("no difference shown", False, None)
    assert f"a mean difference of {mean:.1e} nats is within rounding (1e-06) and shows nothing" in found.notes
    assert found.finding.startswith(f"model #2 − model #1: {mean:+.1e} nats [+")
    assert found.finding.endswith("e-07], within rounding: no difference shown")
