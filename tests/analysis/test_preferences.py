"""Pairs of answers: losses against TRL's own functions, length bias against simulated truth, intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lossprobe.analysis.options import PreferenceOptions
from lossprobe.analysis.preferences.groups import loss_rows
from lossprobe.analysis.preferences.length import measure_length_bias, rank_correlation
from lossprobe.analysis.preferences.losses import Answers, log_odds, pair_losses
from lossprobe.analysis.stats.proportion import newcombe, wilson

# Recorded from TRL 1.16.0 with torch 2.13.0 (CPU), float32: CPOTrainer.cpo_loss (loss_type simpo, beta 2, gamma 0.5),
# ORPOTrainer.odds_ratio_loss (beta 0.1), DPOTrainer._compute_loss (loss_type sigmoid and ipo, beta 0.1) on a model that
# gives these log-probabilities.
CHOSEN = Answers(np.array([-12.5, -30.25, -8.0, -3.5]), np.array([5.0, 10, 4, 2]), np.array([-13.0, -28, -9, -3]))
REJECTED = Answers(np.array([-15.0, -20.5, -8.0, -40.0]), np.array([6.0, 9, 4, 12]), np.array([-14.0, -22, -7.5, -39]))
TRL = {
    "dpo_nats": [0.62095707654953, 0.8981232643127441, 0.62095707654953, 0.6684596538543701],
    "ipo": [22.404441833496094, 29.070066452026367, 21.390625, 26.694442749023438],
    "simpo_nats": [0.9740769863128662, 2.1220366954803467, 0.9740769863128662, 0.06717578321695328],
}
TRL_ODDS_RATIO = [0.06931471824645996, 0.11749688535928726, 0.06931471824645996, 0.016202563419938087]


@pytest.mark.parametrize("name", TRL)
def test_losses_are_those_of_trl(name):
    assert pair_losses(CHOSEN, REJECTED, PreferenceOptions())[name] == pytest.approx(TRL[name], rel=1e-6)


def test_orpo_is_trls_with_the_loss_of_the_answer_alone():
    expected = np.array(TRL_ODDS_RATIO) - CHOSEN.logp / CHOSEN.tokens
    assert pair_losses(CHOSEN, REJECTED, PreferenceOptions())["orpo_nats"] == pytest.approx(expected, rel=1e-6)


def test_margin_ranking_and_losses_without_a_reference():
    plain = Answers(CHOSEN.logp, CHOSEN.tokens), Answers(REJECTED.logp, REJECTED.tokens)
    found = pair_losses(*plain, PreferenceOptions(margin=3.0))
    assert found["pair_margin_ranking_nats"].tolist() == [0.5, 12.75, 3.0, 0.0]
    assert not {"dpo_nats", "ipo"} & found.keys()


def test_odds_of_a_certain_answer_are_finite():
    assert np.isfinite(log_odds(np.array([0.0, -1e-300, -800.0]))).all()


def test_intervals_of_shares():
    assert wilson(0.0, 10).interval.low == 0.0
    assert wilson(0.5, 0).interval.low is None
    low, high = newcombe(wilson(56 / 70, 70), wilson(48 / 80, 80)).interval  # Newcombe 1998, table II (a), method 10
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


def simulated(length_effect: float, seed: int, chosen_longer: float = 0.5, pairs: int = 400) -> tuple:
    """Return margins and differences in length of pairs that are ranked by quality, plus an effect of length."""
    generator = np.random.default_rng(seed)
    longer = generator.integers(1, 60, pairs) * np.where(generator.random(pairs) < chosen_longer, 1, -1)
    margin = generator.normal(0.5, 1.0, pairs) + length_effect * longer
    return margin, longer.astype(float), np.arange(pairs)


@pytest.mark.parametrize(("effect", "word"), [(-0.05, "shorter"), (0.05, "longer")])
def test_length_bias_is_named_where_it_is(effect, word):
    for seed in range(20):
        found = measure_length_bias("sum", *simulated(effect, seed))
        assert found.finding is not None
        assert f"the {word} answer wins" in found.finding
        assert (found.length_bias > 0) == (effect > 0)


def test_length_bias_is_silent_without_one_also_where_chosen_answers_are_mostly_longer():
    for share in (0.5, 0.9):
        named = sum(measure_length_bias("sum", *simulated(0.0, seed, share)).finding is not None for seed in range(400))
        assert named <= 36, "5 % by chance: 20 of 400, and 3.7 standard errors"


def test_length_bias_says_nothing_where_all_chosen_answers_are_longer():
    found = measure_length_bias("sum", *simulated(0.05, 1, chosen_longer=1.0))
    assert found.length_bias is None
    assert found.finding is None
    assert found.right_where_shorter is None
    assert found.longer_wins is not None


def test_rank_correlation_needs_values_that_differ():
    assert rank_correlation(np.zeros(5), np.arange(5.0), 5) is None
    assert rank_correlation(np.arange(3.0), np.array([0.0, 2.0, 1.0]), 3).interval.low is None


def test_a_loss_has_no_interval_below_zero():
    ranked = pd.DataFrame({"distinct": [0, 1], "pair_margin_ranking_nats": [0.0, 9.0]})
    (row,) = loss_rows(ranked, {"pair_margin_ranking_nats": ("margin ranking", "max(0, m − margin)")})
    assert (row["mean"], row["low"]) == (4.5, 0.0)
    assert row["high"] == pytest.approx(4.5 + 12.7062 * 4.5, abs=1e-3)  # t(1) · SE, SE = 4.5
