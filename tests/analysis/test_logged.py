"""The losses that trainers logged, by their formulas; each value was logged by the program itself."""

import math

import numpy as np
import pytest
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from lossprobe.analysis.logged.grouped import length_grouped, shuffled_as_torch
from lossprobe.analysis.logged.recipe import Denominator, Ranks, Recipe, RowSums, logged_loss

LENGTHS = np.array([5, 17, 9, 30, 4, 12, 7])
SUMS = np.array([16.036342, 71.500969, 34.1395, 126.940515, 11.017115, 48.105767, 26.162774])


def rows(losses, lengths=LENGTHS):
    """Return rows of which every token but the first is scored."""
    lengths = np.array(lengths)
    return sums(losses, lengths - 1, lengths)


def sums(losses, tokens, labels, uniform=None):
    """Return rows with these sums, and zeros for what does not matter."""
    zeros = np.zeros(len(tokens))
    return RowSums(np.asarray(losses, float), zeros if uniform is None else uniform, zeros, tokens, labels, tokens)


CONSTANT = rows((LENGTHS - 1) * math.log(61))  # a model with zero weights: every token costs ln 61
REAL = rows(SUMS)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_a_constant_loss_is_logged_whatever_the_batches(size):
    assert logged_loss(CONSTANT, Recipe(size)) == pytest.approx(4.110874, abs=1e-6)


@pytest.mark.parametrize(
    ("recipe", "logged"),
    [
        (Recipe(7, Denominator.LABELS), 3.768301),
        (Recipe(3, Denominator.LABELS), 3.741581),
        (Recipe(2, ranks=2), 4.208752),
        (Recipe(4, ranks=2), 4.350131),
        (Recipe(2, ranks=2, sharing=Ranks.OWN), 4.110874),
        (Recipe(4, ranks=2, sharing=Ranks.OWN), 4.110874),
    ],
)
def test_a_constant_loss_is_not_logged_where_counts_or_ranks_distort_it(recipe, logged):
    assert logged_loss(CONSTANT, recipe) == pytest.approx(logged, abs=1e-6)


@pytest.mark.parametrize(
    ("recipe", "logged"),
    [
        (Recipe(1), 4.218382), (Recipe(2), 4.323907), (Recipe(3), 4.339776), (Recipe(7), 4.336402),
        (Recipe(1, ranks=2), 4.448491), (Recipe(2, ranks=2), 4.402462),
    ],
)  # fmt: skip
def test_a_small_model(recipe, logged):
    assert logged_loss(REAL, recipe) == pytest.approx(logged, abs=1e-6)


def test_rows_of_three_tokens_of_gpt2():
    short = rows(np.full(4, 2 * math.log(61)), [3] * 4)
    assert logged_loss(short, Recipe(2, Denominator.LABELS)) == pytest.approx(2.740582, abs=1e-6)
    assert logged_loss(short, Recipe(2, Denominator.TOKENS_OR_ONE)) == pytest.approx(4.110874, abs=1e-6)


@pytest.mark.parametrize(("size", "logged"), [(1, 4.210207), (2, 4.330691)])
def test_a_row_that_is_masked_as_a_whole(size, logged):
    masked = np.arange(7) == 2
    some = sums(np.where(masked, 0, SUMS), np.where(masked, 0, LENGTHS - 1), LENGTHS)
    assert logged_loss(some, Recipe(size)) == pytest.approx(logged, abs=1e-6)
    if size == 1:
        assert math.isnan(logged_loss(some, Recipe(1, drops_nonfinite=False)))
        means = np.where(masked, 0, SUMS / (LENGTHS - 1))
        assert logged_loss(some, Recipe(1, Denominator.TOKENS_OR_ONE)) == pytest.approx(means.mean(), abs=1e-9)


def test_label_smoothing():
    uniform = np.array([6.0, 2.0])
    some = sums(np.array([4.0, 3.0]), np.array([2, 1]), np.array([3, 2]), uniform)
    assert logged_loss(some, Recipe(2, smoothing=0.1)) == pytest.approx((0.9 * 7 + 0.1 * 8) / 3)


# Recorded on one thread in float32, a Llama of 97 entries: row sums, and what Trainer logged for them.
LONG = np.array([20, 2, 7, 39, 1, 12, 5, 32, 4, 10, 26])
NATS = np.array([
    94.38501, 7.44776, 30.41962, 191.81252, 5.16574, 62.83222, 24.9016, 164.76238, 22.18718, 47.5434, 135.20951,
])  # fmt: skip
UNIFORM = np.array([
    97.48023, 9.88268, 34.04274, 191.20226, 4.89571, 58.41957, 24.36609, 156.49736, 19.63234, 48.6743, 127.48066,
])  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "logged"),
    [
        (Recipe(4), 5.004192),  # 5.10.1 and 5.23.0
        (Recipe(4, Denominator.LABELS), 4.671620),  # 4.57.6
        (Recipe(4, smoothing=0.05), 4.998452),  # 4.57.6 to 5.23.0
        (Recipe(2, ranks=2, sharing=Ranks.OWN), 4.962347),  # 5.10.1 and 5.23.0, averaging off
        (Recipe(2, Denominator.LABELS, 2, Ranks.OWN), 4.548912),  # 4.57.6, averaging off
        (Recipe(2, ranks=2, smoothing=0.05), 4.721470),  # 5.23.0
        (Recipe(2, ranks=3, smoothing=0.05), 4.742099),
        (Recipe(2, ranks=2, sharing=Ranks.MULTIPLIED, smoothing=0.05), 9.916816),  # 4.57.6, 5.9.0 and 5.10.1
        (Recipe(2, ranks=3, sharing=Ranks.MULTIPLIED, smoothing=0.05), 14.875223),
    ],
)
def test_smoothing_and_ranks_of_several_releases(recipe, logged):
    assert logged_loss(sums(NATS, LONG, LONG + 1, UNIFORM), recipe) == pytest.approx(logged, abs=3e-6)


@pytest.mark.parametrize(
    ("size", "ranks", "logged"), [(2, 1, 4.979088), (4, 1, 4.977074), (2, 2, 4.783881), (2, 3, 4.922635)]
)
def test_rows_that_the_trainer_grouped_by_length(size, ranks, logged):
    """transformers 5.23.0 with train_sampling_strategy="group_by_length" and its own seed."""
    order = length_grouped(LONG + 1, size)
    assert logged_loss(sums(NATS, LONG, LONG + 1).take(order), Recipe(size, ranks=ranks)) == pytest.approx(
        logged, abs=2e-6
    )


def test_the_shuffle_is_that_of_torch():
    for size in (1, 2, 11, 1000):
        drawn = torch.randperm(size, generator=torch.Generator().manual_seed(42))
        assert shuffled_as_torch(size, 42).tolist() == drawn.tolist()


@pytest.mark.parametrize(("size", "rows_per_batch"), [(1, 4), (7, 2), (100, 8), (900, 2)])
def test_the_order_of_grouped_rows_is_that_of_the_sampler(size, rows_per_batch):
    lengths = np.random.default_rng(size).integers(1, 50, size)
    sampler = LengthGroupedSampler(
        rows_per_batch, lengths=lengths.tolist(), generator=torch.Generator().manual_seed(42)
    )
    assert length_grouped(lengths, rows_per_batch).tolist() == list(sampler)
