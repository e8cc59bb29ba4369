"""Diagnoses of training logs with known numbers: each rule, the evidence it gives, and the nearest log without it."""

import math

import numpy as np
import pytest
from loss_curves import falling, found, log_of, uneven

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.examine import EXPLAINED, RULES, examine
from lossprobe.analysis.curve.parting import part
from lossprobe.analysis.curve.summary import summarise

LN_1024 = math.log(1024)


def names(log, vocabulary=None):
    return list(found(log, vocabulary))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 9, 12, 20, 64, 65])
def test_a_log_of_few_rows_is_healthy(rows):
    assert names(log_of(falling(rows), rate=1e-3, gradient=1.0, epochs=1.0) if rows else log_of()) == []
    assert names(log_of(falling(rows), falling(max(rows // 4, 1), noise=0.0), rate=1e-3), 22_026) == []


def test_every_diagnosis_has_words_and_remedies_as_many_as_causes():
    for name, diagnosis in DIAGNOSES.items():
        assert diagnosis.name == name
        assert diagnosis.rule.endswith("."), name
        assert len(diagnosis.causes) == len(diagnosis.remedies) > 0, name
    assert [name for name, diagnosis in DIAGNOSES.items() if not diagnosis.fault] == ["plateau"]
    assert {*EXPLAINED, *(name for others in EXPLAINED.values() for name in others)} <= set(DIAGNOSES)
    assert len(RULES) == len(DIAGNOSES)


def test_nan_is_told_with_the_last_finite_value_and_whether_it_ends():
    losses = np.array([4.0, 3.9, 3.8, np.nan, 3.7, 3.6])
    finding = found(log_of(losses, every=10))["not-finite"]
    assert (finding.first_step, finding.last_step, finding.key) == (40, 40, "loss")
    assert finding.size == pytest.approx(100 / 6)
    assert finding.evidence == (
        "loss is NaN at step 40 (1 row of 6 are not finite); the last finite value before it is 3.8 at step 30; it is "
        "finite again after step 40"
    )
    ending = found(log_of([4.0, np.inf, np.nan], every=10))["not-finite"]
    assert (ending.first_step, ending.last_step) == (20, 30)
    assert "infinite at step 20" in ending.evidence
    assert "finite again" not in ending.evidence


def test_nan_in_evaluations_alone_is_told():
    assert found(log_of(falling(40), [np.nan, np.nan]))["not-finite"].key == "eval_loss"


def test_gradients_that_loss_scaling_skips_are_no_fault():
    gradient = np.ones(200)
    gradient[:4] = np.inf
    gradient[90] = np.inf
    assert names(log_of(falling(200), gradient=gradient)) == []
    gradient[-3:] = np.nan
    assert names(log_of(falling(200), gradient=gradient)) == ["not-finite"]


def test_a_loss_of_zero_is_no_training_unless_it_came_down_to_it():
    assert names(log_of(np.zeros(10), gradient=np.zeros(10))) == ["nothing-trained"]
    assert names(log_of([0.9, 0.8, 0.7, 0.0, 0.0, 0.0])) == ["nothing-trained"]
    memorised = [2.0, 0.5, 0.1, 0.01, 0.0, 0.0, 0.0]
    assert names(log_of(memorised)) == []
    assert names(log_of(memorised, gradient=1e-3)) == []


def test_a_collapse_to_ln_v_is_told_with_and_without_v():
    losses = [1.637, 11.8, 11.6, 10.38] + [math.log(32_000)] * 6
    for vocabulary in (None, 32_000):
        result = found(log_of(losses, rate=5.0), vocabulary)
        assert list(result) == ["uniform", "explosion", "learning-rate-too-high"]
        assert result["uniform"].first_step == 5
        assert "ln 32,000" in result["uniform"].evidence
    assert "uniform" not in names(log_of(losses), 50_257)
    assert "uniform" not in names(log_of([3.0, 2.9, 2.7, 2.6, 2.5, 2.5, 2.5, 2.5, 2.5]))


def test_an_explosion_is_told_from_where_it_rises_by_how_much_it_stays_up():
    losses = np.append(falling(300), 6.0 + uneven(100, 0.03))
    finding = found(log_of(losses, every=5))["explosion"]
    assert finding.first_step == 301 * 5
    assert finding.size == pytest.approx(6.0 - falling(300)[-8:].mean(), abs=0.05)
    assert "never came back" in finding.evidence
    back = np.concatenate([falling(300), 6.0 + uneven(60, 0.03), 3.9 + uneven(140, 0.03)])
    assert "came back at step" in found(log_of(back))["explosion"].evidence


def test_a_rise_of_a_tenth_or_within_noise_is_no_explosion():
    assert "explosion" not in names(log_of(np.append(falling(300), 4.4 + uneven(100, 0.03))))
    assert "explosion" not in names(log_of(np.append(falling(300, noise=1.0), 5.5 + uneven(100, 1.0))))


def test_the_scale_of_float16_that_falls_to_one_is_told():
    for scale, told in ((2.0 ** np.linspace(16, 0, 100).round(), ["fp16-overflow"]), (1.0, []), (2.0**16, [])):
        assert names(log_of(falling(100), more=[("loss_scale", scale)])) == told


def test_a_flat_loss_is_a_fault_only_where_nothing_is_known():
    flat = LN_1024 + uneven(100, 0.02)
    result = found(log_of(flat, every=10), 1024)
    assert list(result) == ["not-learning"]
    assert result["not-learning"].size_interval.high < 0.02 * LN_1024
    assert names(log_of(flat, every=10)) == ["not-learning"]  # 6.9 nats are too many for any model of a language
    assert names(log_of(flat, every=1), 1024) == []  # 99 steps
    assert names(log_of(2.0 + uneven(100, 0.02), every=10), 32_000) == []  # a fine-tuned model that had learned it all
    assert names(log_of(math.log(2.0) + uneven(100, 0.002), every=10)) == ["not-learning"]  # a preference loss


def test_the_last_steps_of_a_resumed_run_are_not_judged_as_its_start():
    log = log_of(LN_1024 + uneven(2000, 0.02))
    series = log.series[0]
    late = type(series)(series.split, series.name, series.key, series.steps[1000:], series.values[1000:])
    assert names(type(log)(log.path, log.kind, (late,)), 1024) == []


def test_a_plateau_is_worth_knowing_while_the_rate_is_high():
    losses = np.append(falling(200), falling(200)[-1] + uneven(200, 0.01))
    for rate, told in ((None, ["plateau"]), (1e-3, ["plateau"]), (np.linspace(1, 0, 400), [])):
        assert names(log_of(losses, rate=rate)) == told
    assert names(log_of(np.linspace(4.0, 2.0, 400) + uneven(400, 0.01))) == []


def test_a_rate_too_high_is_told_by_a_rise_at_its_peak():
    rate = np.minimum(1.0, np.arange(1, 401) / 40) * 1e-2
    losses = np.concatenate([falling(40), 12.0 + uneven(360, 0.05)])
    assert names(log_of(losses, rate=rate))[:2] == ["explosion", "learning-rate-too-high"]
    late = np.append(falling(300), 9.0 + uneven(100, 0.05))
    assert names(log_of(late, rate=rate)) == ["explosion"]
    assert names(log_of(losses)) == ["explosion"]  # the log has no rate


def test_a_rate_too_high_is_told_by_a_loss_above_its_start():
    for first, rows, told in ((14, 4, True), (14, 1, False), (200, 4, False)):  # one row says nothing of the rate
        losses = falling(300, LN_1024, 5.0)
        losses[first : first + rows] = 9.1
        assert ("learning-rate-too-high" in names(log_of(losses, rate=2e-2))) == told


def test_a_rate_too_high_is_told_by_a_loss_that_waits_for_the_rate_to_fall():
    share = np.arange(300) / 300
    rate = 0.02 * (1 + np.cos(math.pi * share)) / 2
    stuck = 6.1 + 0.8 * np.exp(-np.arange(300) / 5.0) - 0.6 * np.maximum(0.0, share - 0.5) + uneven(300, 0.03)
    assert names(log_of(stuck, rate=rate), 1024) == ["learning-rate-too-high"]
    assert names(log_of(stuck - 3.0, rate=rate), 1024) == []  # flat, but far below the loss of single tokens


def test_a_loss_that_never_leaves_that_of_single_tokens_is_told():
    stuck = 6.1 + 0.8 * np.exp(-np.arange(400) / 8.0) + uneven(400, 0.05)  # ln 1024 = 6.93
    for log in (log_of(stuck), log_of(stuck, rate=0.05)):
        for vocabulary in (None, 1024):
            assert names(log, vocabulary) == ["not-learning"]
    assert "fell from 6.8" in found(log_of(stuck))["not-learning"].evidence
    assert names(log_of(stuck - 3.0, rate=0.05), 1024) == []
    assert names(log_of(stuck - np.linspace(0.0, 0.5, 400), rate=0.05), 1024) == []


def test_the_level_of_a_loss_that_is_negative_is_not_judged():
    policy = np.append(uneven(200, 0.001), np.linspace(0.0, 0.5, 200) + uneven(200, 0.01))  # what a KL term does
    assert names(log_of(policy, rate=1e-6)) == []
    assert names(log_of(np.abs(policy), rate=1e-6)) == ["explosion"]
    policy[300] = np.nan
    assert names(log_of(policy)) == ["not-finite"]


def test_a_first_loss_of_several_times_ln_v_is_said_to_be_a_sum():
    sums = found(log_of(4.0 * falling(100, LN_1024, 3.0)), 1024)["wrong-start"]
    assert "perhaps the sum over 4 micro-batches" in sums.evidence
    assert "micro-batches" not in found(log_of(falling(100, 1.5 * LN_1024, 3.0)), 1024)["wrong-start"].evidence


def test_a_rate_too_low_falls_in_a_straight_line_or_is_zero():
    line = LN_1024 - np.linspace(0.0, 0.6, 200) + uneven(200, 0.01)
    assert names(log_of(line, rate=1e-6), 1024) == ["learning-rate-too-low"]
    assert names(log_of(line), 1024) == []
    assert names(log_of(falling(200, LN_1024, 6.0, 0.01), rate=1e-3), 1024) == ["plateau"]
    rate = np.maximum(0.0, 1.0 - np.arange(200) / 120)
    ended = found(log_of(np.append(falling(120), falling(120)[-1] + uneven(80, 0.03)), rate=rate))
    assert list(ended) == ["learning-rate-too-low"]
    assert (ended["learning-rate-too-low"].first_step, ended["learning-rate-too-low"].size) == (121, 40.0)


def test_a_small_rate_that_is_printed_as_zero_is_none():
    loss, decaying = falling(200), 2e-7 * np.linspace(1.0, 0.0, 200) ** 2
    assert "learning-rate-too-low" not in names(log_of(loss, rate=np.round(decaying, 8)))
    assert "learning-rate-too-low" not in names(log_of(loss, rate=0.0)), "the loss falls, so the rate is not 0"
    assert "learning-rate-too-low" not in names(log_of(loss, rate=np.where(np.arange(200) < 60, 0.0, 1e-4)))
    stopped = np.append(loss, 3.2 + uneven(100, 0.03))
    assert "learning-rate-too-low" in names(log_of(stopped, rate=np.where(np.arange(300) < 200, 1e-4, 0.0)))
    assert "learning-rate-too-low" in names(log_of(stopped, rate=np.where(np.arange(300) < 200, 3e-4, 0.0)))


def test_over_fitting_is_told_by_the_rise_after_the_lowest_evaluation():
    validation = [3.0, 2.5, 2.3, 2.2, 2.25, 2.31, 2.36, 2.44]
    finding = found(log_of(falling(80, 3.0, 1.0, 0.01), validation))["over-fitting"]
    assert (finding.first_step, finding.last_step) == (40, 80)
    assert finding.size == pytest.approx((2.36 + 2.44) / 2 - 2.2)
    assert finding.size_interval.low < finding.size < finding.size_interval.high
    assert names(log_of((), validation)) == ["over-fitting"]  # evaluations alone


def test_a_step_up_between_evaluations_is_no_noise_of_them():
    validation = [1.641, 1.6, 1.577, 1.569, 1.571, 1.566, 1.561, 1.554, 1.552, 1.573, 1.576, 1.578, 1.5775]
    assert "over-fitting" in names(log_of(falling(130, 2.2, 1.5, 0.05), validation))


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (falling(80, 3.0, 1.0, 0.01), [3.0, 2.5, 2.3, 2.2, 2.21]),  # one evaluation after the lowest
        (falling(80, 3.0, 1.0, 0.01), [3.0, 2.5, 2.3, 2.2, 2.21, 2.2, 2.21, 2.21]),  # half a percent
        (falling(80, 3.0, 1.0, 0.01), [3.0, 2.2, 2.5, 2.1, 2.4, 2.15, 2.3, 2.2, 2.35]),  # noise
        (np.append(falling(40), 3.9 + np.linspace(0, 0.5, 40)), [5.0, 4.2, 4.0, 3.9, 4.0, 4.1, 4.2, 4.3]),  # both rise
    ],
)
def test_no_over_fitting_without_a_rise_beyond_noise_in_the_validation_loss_alone(train, validation):
    assert "over-fitting" not in names(log_of(train, validation))


def test_spikes_are_counted_and_measured():
    losses = falling(600)
    losses[[200, 400, 401]] += [2.0, 3.0, 1.5]
    finding = found(log_of(losses, every=10))["spikes"]
    assert finding.evidence.startswith("2 spikes in 600 rows; the largest, at step 4,010, is 3")
    assert finding.size == pytest.approx(100 * 3 / 600)
    assert (finding.first_step, finding.last_step) == (2010, 4020)


def test_heavy_tails_and_a_steep_start_are_no_spikes():
    tails = np.random.default_rng(1).standard_t(4, 5000)
    assert names(log_of(falling(5000, noise=0.0) + 0.05 * tails)) == []
    assert names(log_of(3.0 + 7.0 * 0.5 ** np.arange(100) + uneven(100, 0.01))) == ["plateau"]


def test_the_first_loss_is_held_against_ln_v():
    assert names(log_of(falling(200, 12.0, 4.0, 0.01)), 1024) == ["wrong-start"]
    assert names(log_of(falling(200, 12.0, 4.0, 0.01))) == []
    assert names(log_of(falling(200, LN_1024 + 0.5, 4.0, 0.01)), 1024) == []
    below = found(log_of(falling(200, 5.5, 3.0, 0.01)), 1024)["wrong-start"]
    assert below.size == pytest.approx(5.5 - LN_1024, abs=0.02)
    assert names(log_of(falling(200, 5.5, 3.0, 0.01), every=100), 1024) == []  # the mean of 100 steps of learning
    assert names(log_of(falling(200, 2.5, 2.0, 0.01)), 1024) == []  # pretrained


def test_memorising_falls_at_the_edges_of_epochs():
    epoch = np.repeat([1.1, 0.8, 0.5, 0.3], 50)
    finding = found(log_of(epoch + uneven(200, 0.03), epochs=4.0))["memorising"]
    assert finding.size == pytest.approx(0.8 / 3, abs=0.02)
    assert (finding.first_step, finding.last_step) == (51, 151)
    assert names(log_of(epoch + uneven(200, 0.03))) == []  # the log has no epochs
    assert names(log_of(falling(200, 1.1, 0.3, 0.03), epochs=4.0)) == []
    assert names(log_of(np.repeat([1.1, 1.05, 1.0, 0.96], 50) + uneven(200, 0.03), epochs=4.0)) == []  # 13 % in all


@pytest.mark.parametrize("jump", [0.4, -0.4])
def test_a_step_at_a_restart_is_told_with_its_sign(jump):
    losses = falling(300)
    losses[150:] += jump
    finding = found(log_of(losses, restarts=[151]))["restart-jump"]
    assert finding.size == pytest.approx(jump, abs=0.05)
    assert finding.first_step == 151
    assert names(log_of(falling(300), restarts=[151])) == []
    assert names(log_of(losses, restarts=[50])) == []


def test_a_rise_at_a_restart_is_no_explosion():
    losses = falling(300)
    losses[150:] += 3.0
    assert names(log_of(losses, restarts=[151])) == ["restart-jump"]
    assert names(log_of(losses)) == ["explosion"]


def test_a_cycle_is_told_with_its_length_and_height():
    row = np.arange(600)
    finding = found(log_of(falling(600) + 0.2 * np.sin(2 * math.pi * row / 20.0), every=10))["oscillation"]
    assert finding.size == pytest.approx(0.4, abs=0.05)
    assert "about every 200 steps" in finding.evidence
    rate = 1e-3 * (1.5 + np.sin(2 * math.pi * row / 20.0))
    assert names(log_of(falling(600) + 0.2 * np.sin(2 * math.pi * row / 20.0), rate=rate)) == []
    assert names(log_of(falling(600) + 0.2 * np.sin(2 * math.pi * row / 60.0), epochs=10.0)) == []


@pytest.mark.parametrize("factor", [1.0 / math.log(2.0), math.log(2.0)])
def test_bits_against_nats_are_told_by_their_ratio(factor):
    train = falling(200, noise=0.01)
    validation = 1.01 * train[19::20]
    result = found(log_of(train * factor, validation))
    assert list(result) == ["measured-differently"]
    assert result["measured-differently"].size == pytest.approx(1.01 / factor, rel=0.01)
    assert names(log_of(train, validation)) == []


def test_evaluations_below_the_training_rows_after_them_are_no_lag():
    train = falling(400, noise=0.01)
    assert names(log_of(1.25 * train, train[39::40])) == ["measured-differently"]
    means = np.append(train[0], (train[1:] + train[:-1]) / 2.0)  # a row is the mean since the last
    assert names(log_of(means, train[39::40])) == []
    assert names(log_of(1.05 * train, train[39::40])) == []


@pytest.mark.parametrize("rows", [8, 12, 19])
def test_the_mean_of_a_short_run_so_far_is_no_other_measure(rows):
    loss = 2.0 + 6.0 * 0.3 ** np.arange(rows)  # falls steeply and is flat then, so that the mean stays far above
    so_far = np.cumsum(loss) / np.arange(1, rows + 1)
    assert names(log_of(so_far, loss[rows // 4 :: rows // 5])) == []


@pytest.mark.parametrize("times", [2, 8])
def test_a_training_loss_that_was_not_divided_is_told(times):
    train = falling(200, noise=0.01)
    result = found(log_of(times * train, 1.02 * train[19::20]), 22_026)
    assert list(result) == ["accumulation-scale"]
    assert result["accumulation-scale"].size == pytest.approx(times / 1.02, rel=0.01)
    assert names(log_of(1.5 * times * train[:100], ())) == []


def test_a_smoothed_training_loss_is_told_by_how_it_depends_on_the_plain_one():
    plain = falling(400, LN_1024, 2.5, 0.005)
    smoothed = 0.9 * plain + 0.1 * 1.3 * LN_1024
    result = found(log_of(smoothed, plain[39::40]), 1024)
    assert list(result) == ["smoothed-loss"]
    assert "smoothing of 0.10" in result["smoothed-loss"].evidence
    assert "smoothed-loss" not in names(log_of(smoothed, plain[39::40]))  # V is not known
    assert names(log_of(plain, 1.05 * plain[39::40]), 1024) == []


def test_findings_stand_in_the_order_of_the_diagnoses():
    losses = np.append(falling(300), 9.0 + uneven(100, 0.05))
    losses[150] += 4.0
    losses[-1] = np.nan
    told = [finding.diagnosis.name for finding in examine(log_of(losses))]
    assert told == [name for name in DIAGNOSES if name in told] == ["not-finite", "explosion", "spikes"]


@pytest.mark.parametrize("every", [1, 10, 100])
def test_a_log_of_fewer_rows_tells_the_same(every):
    """The same run of 10,000 steps, logged at each step or as means of several."""
    step = np.arange(10_000)
    noise = np.random.default_rng(3).normal(0.0, 0.02, len(step))
    healthy = 3.0 + 7.0 / np.sqrt(1.0 + step / 200.0) + noise
    exploded = np.where(step < 7000, healthy, healthy + 4.0)
    flat = np.where(step < 4000, healthy, healthy[4000])
    for losses, told in ((healthy, []), (exploded, ["explosion"]), (flat + noise, ["plateau"])):
        rows = losses.reshape(-1, every).mean(axis=1)
        assert names(log_of(rows, every=every)) == told


HOSTILE = (0.0, 3.3, -1.0, 1e308, -1e308, 1e-300, np.nan, np.inf, -np.inf)


def test_no_numbers_end_an_examination():
    """Random logs of few and many rows, with warnings as errors as in all tests; epochs may be steps."""
    for seed in range(120):
        rng = np.random.default_rng(seed)
        rows = int(rng.choice([1, 2, 3, 5, 8, 12, 21, 64, 130]))

        def values(count, rng=rng):
            drawn = rng.choice([np.zeros(count), rng.random(count), rng.standard_cauchy(count), np.arange(count)])
            return np.where(rng.random(count) < rng.choice([0.0, 0.1, 1.0]), rng.choice(HOSTILE, count), drawn)

        log = log_of(
            values(rows), values(int(rng.integers(0, rows + 1))), values(rows), values(rows),
            every=int(rng.integers(1, 999)), epochs=rng.choice([1.0, 3.0, 1e6]), restarts=[5, 10**9],
            more=[("loss_scale", values(rows))],
        )  # fmt: skip
        examine(log, int(rng.choice([1, 2, 50_257])))
        summarise(log)
        part(log, log_of(values(rows)))
