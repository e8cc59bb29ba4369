"""The smoothing panel: what one model loses against another on the same tokens, held against what is true."""

import math

import numpy as np
import pandas as pd
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
from scipy.stats import t as student

from lossprobe.analysis.calibration.effective_smoothing import effective_smoothing
from lossprobe.analysis.calibration.smoothing import (
    LOSS_EDGES,
    MEASURES,
    MeasuredModel,
    after_temperature,
    compare_models,
    compare_tokens,
)
from lossprobe.analysis.calibration.temperature import TemperedRows, tempered_rows

ROWS, VOCAB, DOCUMENTS = 1500, 48, 25


@pytest.fixture
def world(tmp_path):
    """Draw contexts and targets from a seed, and write runs of models of them."""

    class World:
        def __init__(self, seed=1, rows=ROWS, documents=DOCUMENTS, vocab=VOCAB):
            rng = np.random.default_rng(seed)
            self.seed, self.documents = seed, document_numbers(rng, rows, documents)
            self.logits = draw_logits(rng, rows, vocab)
            self.targets = draw_targets(rng, self.logits)

        def run(self, logits, name="model", **choices):
            folder = tmp_path / f"{self.seed}-{len(list(tmp_path.iterdir()))}"
            return write_drawn(folder, logits, self.targets, self.documents, name=name, **choices).run

        def losses(self, logits):
            return -log_probabilities(logits)[np.arange(len(self.targets)), self.targets]

    return World


def compared(runs, names=None):
    """Return the comparison of runs with the first of them, each measured as the command does."""
    names = names or [run.name for run in runs]
    pairs = zip(names, runs, strict=True)
    return compare_models(
        [MeasuredModel(name, run, tempered_rows(run), effective_smoothing(run)) for name, run in pairs]
    )


def values(panel, second=None):
    table = panel.table if second is None else panel.table[panel.table["second"] == second]
    return table.set_index("measure")[["value", "low", "high"]]


def leave_one_out(numbers, groups):
    """Return the mean with its jackknife-t interval, by leaving out one group after the other."""
    rest = np.array([numbers[groups != group].mean() for group in np.unique(groups)])
    count = len(rest)
    half = student.ppf(0.975, count - 1) * math.sqrt((count - 1) / count * ((rest - rest.mean()) ** 2).sum())
    return [numbers.mean(), numbers.mean() - half, numbers.mean() + half]


def test_every_difference_is_that_of_the_rows(world):
    drawn = world()
    other = smoothed_logits(drawn.logits, 0.1) + 0.5 * np.random.default_rng(2).standard_normal(drawn.logits.shape)
    panel = compared([drawn.run(drawn.logits), drawn.run(other)], ["plain", "smoothed"])
    found = values(panel)
    assert list(found.index) == list(MEASURES)
    assert panel.table["unit"].tolist() == list(MEASURES.values())
    nats = drawn.losses(other) - drawn.losses(drawn.logits)
    expected = leave_one_out(nats, drawn.documents)
    assert found.loc["nll_difference_nats"].tolist() == pytest.approx(expected, abs=1e-6)
    assert found.loc["perplexity_ratio"].tolist() == pytest.approx(np.exp(expected).tolist(), abs=1e-6)
    for measure, last in (("accuracy_difference", 1), ("top5_accuracy_difference", 5)):
        right = [(z > z[np.arange(ROWS), drawn.targets][:, None]).sum(axis=1) < last for z in (drawn.logits, other)]
        expected = leave_one_out(right[1].astype(float) - right[0], drawn.documents)
        assert found.loc[measure].tolist() == pytest.approx(expected, abs=1e-12)


def test_where_the_difference_comes_from(world):
    drawn = world()
    sharp, smoothed = tempered_logits(drawn.logits, 0.4), smoothed_logits(drawn.logits, 0.2)
    panel = compared([drawn.run(sharp), drawn.run(smoothed)], ["sharp", "smoothed"])
    first, second = drawn.losses(sharp), drawn.losses(smoothed)
    bins = pd.cut((first + second) / 2, LOSS_EDGES, right=False, labels=False)
    parts = panel.decomposition
    assert parts["loss_low_nats"].tolist() == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert parts["loss_high_nats"].tolist() == [0.5, 1.0, 2.0, 4.0, 8.0, math.inf]
    for index, row in parts.iterrows():
        chosen = bins == index
        assert row["tokens"] == chosen.sum()
        expected = leave_one_out((second - first)[chosen], drawn.documents[chosen])
        assert [row["mean_difference_nats"], row["low"], row["high"]] == pytest.approx(expected, abs=1e-6)
        assert row["contribution_nats"] == pytest.approx((second - first)[chosen].sum() / ROWS, abs=1e-6)
    assert parts["share_of_tokens"].sum() == pytest.approx(1.0, rel=1e-12)
    total = values(panel).loc["nll_difference_nats", "value"]
    assert parts["contribution_nats"].sum() == pytest.approx(total, rel=1e-12)
    assert parts.loc[0, "contribution_nats"] > 0 > parts.loc[5, "contribution_nats"], "easy tokens pay for hard ones"


def test_a_range_without_tokens_is_an_empty_cell(make_run):
    runs = [make_run([words("first_token", 1, bits), words("first_token", 2)]) for bits in (1, 2)]
    parts = compared(runs).decomposition
    assert parts["tokens"].tolist() == [0, 1, 2, 0, 0, 0]
    assert parts["mean_difference_nats"].isna().tolist() == [True, False, False, True, True, True]
    assert parts["contribution_nats"].tolist() == pytest.approx([0, 0, math.log(2) / 3, 0, 0, 0], abs=1e-6)


def test_a_run_against_itself_differs_in_nothing(world):
    drawn = world()
    run = drawn.run(drawn.logits)
    panel = compared([run, run], ["it", "itself"])
    found = values(panel)
    for measure in ("nll_difference_nats", "nll_difference_after_temperature_nats", "accuracy_difference"):
        assert found.loc[measure].tolist() == [0.0, 0.0, 0.0]
    assert found.loc["perplexity_ratio"].tolist() == [1.0, 1.0, 1.0]
    assert (panel.decomposition[["mean_difference_nats", "contribution_nats"]].fillna(0.0) == 0.0).all(axis=None)
    assert panel.smaller_nll["smaller"].tolist() == ["equal", "equal"]
    assert not panel.smaller_nll["clear"].any()


def test_swapping_the_models_flips_every_sign(world):
    drawn = world()
    runs = [drawn.run(drawn.logits), drawn.run(smoothed_logits(drawn.logits, 0.1))]
    one, other = values(compared(runs, "ab")), values(compared(runs[::-1], "ba"))
    for measure in (name for name in MEASURES if name.endswith(("nats", "difference"))):
        assert one.loc[measure].tolist() == pytest.approx(
            (-other.loc[measure, ["value", "high", "low"]]).tolist(), abs=1e-15
        )
        assert one.loc[measure, "value"] == -other.loc[measure, "value"]
    assert one.loc["perplexity_ratio", "value"] * other.loc["perplexity_ratio", "value"] == pytest.approx(
        1.0, rel=1e-14
    )


def test_several_models_stand_against_the_first(world):
    drawn = world()
    runs = [
        drawn.run(z) for z in (drawn.logits, smoothed_logits(drawn.logits, 0.1), tempered_logits(drawn.logits, 0.8))
    ]
    panel = compared(runs, ["plain", "smoothed", "sharp"])
    for run, name in zip(runs[1:], ["smoothed", "sharp"], strict=True):
        alone = compared([runs[0], run], ["plain", name])
        pd.testing.assert_frame_equal(values(panel, name), values(alone))
    assert panel.table["first"].eq("plain").all()
    assert panel.decomposition["second"].tolist() == ["smoothed"] * 6 + ["sharp"] * 6
    assert panel.finding.count("plain: +") == 2


def test_a_model_that_was_only_sharpened_is_mended_by_its_temperature(world):
    drawn = world(rows=4000)
    panel = compared([drawn.run(drawn.logits), drawn.run(tempered_logits(drawn.logits, 0.6))], ["plain", "sharp"])
    found = values(panel)
    assert found.loc["nll_difference_nats", "low"] > 0.05
    assert found.loc["nll_difference_after_temperature_nats"].abs().max() < 2e-5, "the temperatures differ by 1/0.6"
    winners = panel.smaller_nll
    assert winners["temperature"].tolist() == ["none", "its own"]
    assert winners.loc[0, ["smaller", "clear"]].tolist() == ["plain", True]


def test_after_temperature_is_the_mean_over_the_sample(world):
    drawn = world()
    runs = [drawn.run(drawn.logits), drawn.run(smoothed_logits(drawn.logits, 0.2), sample_every=3)]
    rows = [tempered_rows(run) for run in runs]
    panel = compared(runs, ["plain", "smoothed"])
    plain = dict(zip(zip(rows[0].document, rows[0].token, strict=True), rows[0].tempered_loss_nats, strict=True))
    nats = rows[1].tempered_loss_nats - [plain[key] for key in zip(rows[1].document, rows[1].token, strict=True)]
    assert len(nats) < len(plain) / 2
    expected = leave_one_out(nats, rows[1].document)
    assert values(panel).loc["nll_difference_after_temperature_nats"].tolist() == pytest.approx(expected, rel=1e-9)
    assert panel.notes[0] == f"smoothed − plain: over 1,500 tokens; after temperature over {len(nats)} of them"


def sampled(keys, tempered, clusters=None, held_out=True):
    document, token = np.array(keys, np.int64).reshape(-1, 2).T
    cluster = document if clusters is None else np.array(clusters)
    return TemperedRows(document, token, cluster, np.zeros(len(token)), np.array(tempered, float), held_out)


def test_only_tokens_in_both_samples_are_paired():
    first = sampled([(0, 1), (0, 3), (1, 1), (2, 5)], [1, 2, 3, 4])
    second = sampled([(0, 3), (0, 4), (1, 1), (2, 5)], [2.5, 9, 3.25, 5])
    found, tokens = after_temperature(first, second)
    assert tokens == 3
    assert [found.value, found.interval.low, found.interval.high] == pytest.approx(
        leave_one_out(np.array([0.5, 0.25, 1.0]), np.arange(3)), rel=1e-12
    )


def test_samples_without_a_common_token_give_no_number():
    found, tokens = after_temperature(sampled([(0, 1)], [1]), sampled([(0, 2)], [1]))
    assert (math.isnan(found.value), found.interval.low, tokens) == (True, None, 0)


def test_runs_without_a_ladder_say_so(make_run):
    runs = [make_run([words("first_token", 1, bits), words("first_token", 2)]) for bits in (1, 2)]
    panel = compared(runs, ["one", "other"])
    assert values(panel).loc["nll_difference_after_temperature_nats"].isna().all()
    assert panel.smaller_nll["smaller"].tolist() == ["one", "n/a"]
    assert panel.notes[0].endswith("after temperature over none of them, which have no temperature in common")
    assert panel.finding.endswith("before temperature (not clear which is lower), n/a after")


def test_one_document_has_no_interval(world):
    drawn = world(documents=1, rows=300)
    panel = compared([drawn.run(drawn.logits), drawn.run(smoothed_logits(drawn.logits, 0.1))], ["plain", "smoothed"])
    found = values(panel)
    assert found[["low", "high"]].isna().all(axis=None)
    assert not panel.smaller_nll["clear"].any()
    assert "nats before temperature (no interval, so no test)" in panel.finding
    assert any("no test was possible" in note for note in panel.notes)
    assert any("there is no other half" in note for note in panel.notes)


def test_one_sample_without_another_half_is_enough_to_say_so(world):
    drawn = world(documents=2, rows=300)
    runs = [drawn.run(drawn.logits), drawn.run(drawn.logits, sample_every=200)]  # one of 302 rows
    for pair in (runs, runs[::-1]):
        assert any("there is no other half" in note for note in compared(pair, "ab").notes)
    assert not any("there is no other half" in note for note in compared([runs[0]] * 2, "ab").notes)


def test_sums_are_kept_for_a_bounded_number_of_clusters(make_run):
    run = make_run([words("first_token", 1)] * 1001)
    sums = compare_tokens(run, run).sums
    assert sums["tokens"].shape == (1000, 6)
    assert sums["tokens"].sum() == 1001


def test_tokens_that_one_model_did_not_score_are_counted(make_run):
    runs = [make_run([words("first_token", 1, 3), words("first_token", last)]) for last in (2, "masked")]
    panel = compared(runs, ["one", "other"])
    assert panel.decomposition["tokens"].sum() == 2
    assert "other − one: 1 token that only one of them scored left out" in panel.notes
    assert values(panel).loc["nll_difference_nats"].isna().tolist() == [False, True, True], "one document is left"


def test_nothing_in_common_is_no_number(make_run):
    runs = [make_run([words("first_token", *bits)]) for bits in ((1, "masked"), ("masked", 2))]
    panel = compared(runs, ["one", "other"])
    assert values(panel)["value"].isna().all()
    assert panel.decomposition["contribution_nats"].tolist() == [0.0] * 6


def test_the_bound_is_that_of_the_smoothing_which_shows(world):
    rng = np.random.default_rng(5)
    drawn = world(rows=6000)
    drawn.logits = 2.4 * rng.standard_normal(drawn.logits.shape)
    drawn.targets = draw_targets(rng, drawn.logits)
    runs = [drawn.run(drawn.logits), drawn.run(smoothed_logits(drawn.logits, 0.2))]
    panel = compared(runs, ["plain", "smoothed"])
    bound = values(panel).loc["perplexity_inflation_bound", "value"]
    assert bound == pytest.approx(1 / 0.8, rel=0.03)
    assert 1 < values(panel).loc["perplexity_ratio", "value"] < bound
    backwards = compared(runs[::-1], ["smoothed", "plain"])
    assert math.isnan(values(backwards).loc["perplexity_inflation_bound", "value"])
    assert "perplexity_inflation_bound of plain: n/a, no evidence of smoothing" in backwards.notes


@pytest.mark.thorough
def test_the_interval_holds_the_true_cost_of_smoothing(world):
    """For targets drawn from p the expected difference is KL(p‖q); 95 % of the intervals should hold it."""
    held, distances = 0, []
    for seed in range(12):
        drawn = world(seed, rows=1000)
        smoothed = smoothed_logits(drawn.logits, 0.1)
        log_p, log_q = log_probabilities(drawn.logits), log_probabilities(smoothed)
        divergence = float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())
        panel = compared([drawn.run(drawn.logits), drawn.run(smoothed)], ["plain", "smoothed"])
        value, low, high = values(panel).loc["nll_difference_nats"]
        held += low <= divergence <= high
        distances.append(value - divergence)
        assert 0 < divergence < -math.log(0.9)
    assert held >= 11
    assert abs(np.mean(distances)) < 3 * np.std(distances) / math.sqrt(12)


def test_the_finding_says_it_in_one_line(world):
    drawn = world()
    panel = compared([drawn.run(drawn.logits, "plain"), drawn.run(smoothed_logits(drawn.logits, 0.1), "smoothed")])
    before, after = (values(panel).loc[f"nll_difference{name}_nats"] for name in ("", "_after_temperature"))
    assert panel.smaller_nll["clear"].all()
    assert panel.finding == (
        f"smoothed − plain: {before['value']:+.4f} nats [{before['low']:+.4f}, {before['high']:+.4f}] before "
        f"temperature (plain is lower), {after['value']:+.4f} nats [{after['low']:+.4f}, {after['high']:+.4f}] after "
        "(plain is lower)"
    )
    swapped = compared([drawn.run(smoothed_logits(drawn.logits, 0.1)), drawn.run(drawn.logits)], "sp")
    assert swapped.finding.count("(p is lower)") == 2


def test_an_interval_that_holds_zero_leaves_it_open(world):
    drawn = world(rows=300)
    noise = 0.01 * np.random.default_rng(3).standard_normal(drawn.logits.shape)
    panel = compared([drawn.run(drawn.logits), drawn.run(drawn.logits + noise)], ["plain", "noisy"])
    low, high = values(panel).loc["nll_difference_nats", ["low", "high"]]
    assert low < 0 < high
    assert not panel.smaller_nll.loc[0, "clear"]
    assert "before temperature (not clear which is lower)" in panel.finding
