"""Divergences of two rows of logits against exact arithmetic, and against float64 where both tensors are held."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch

from lossprobe.scoring import divergence
from lossprobe.scoring.divergence import divergence_rows
from lossprobe.scoring.statistics import Workspace, row_statistics


def rows_of(first, second, targets, workspace=None):
    tensors = [torch.as_tensor(values) for values in (first, second, targets)]
    result = divergence_rows(*tensors, workspace)
    return {name: getattr(result, name).numpy() for name in result.__dataclass_fields__}


def exact_divergence(first, second) -> float:
    """Σ p (log p − log q) of two float32 rows with 60 digits; an entry with p = 0 counts nothing."""
    with localcontext() as context:
        context.prec = 60
        logs = []
        for row in (first, second):
            values = [Decimal(float(value)) for value in row]
            log_z = sum(value.exp() for value in values).ln()
            logs.append([value - log_z for value in values])
        return float(sum(((a - b) * a.exp() for a, b in zip(*logs, strict=True) if a.is_finite()), Decimal(0)))


def direct_divergence(first, second):
    """The definition in float64, with exact sums."""
    a, b = (z.double() - torch.logsumexp(z.double(), -1, keepdim=True) for z in (first, second))
    terms = (a.exp() * (a - b)).numpy()
    return np.array([math.fsum(row) for row in terms])


def pair_of_rows(vocab, distance, rows=4, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed + vocab)
    first = torch.randn((rows, vocab), generator=generator) * scale
    second = first + torch.randn((rows, vocab), generator=generator) * distance
    return first, second, torch.randint(vocab, (rows,), generator=generator)


@pytest.mark.parametrize("vocab", [5, 257])
@pytest.mark.parametrize("distance", [1e-6, 1e-4, 0.01, 0.5, 5.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_against_sixty_digits(vocab, distance, offset):
    first, second, targets = pair_of_rows(vocab, distance)
    second = second + offset
    expected = [exact_divergence(*rows) for rows in zip(first, second, strict=True)]
    found = rows_of(first, second, targets)["kl_nats"]
    assert (found >= 0).all()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-30)


@pytest.mark.parametrize("distance", [1e-4, 0.02, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_column_agrees_with_float64_at_the_width_of_gpt2(distance, dtype):
    first, second, targets = (
        value.to(dtype) if value.is_floating_point() else value for value in pair_of_rows(50_257, distance, rows=12)
    )
    found = rows_of(first, second, targets)
    log_p, log_q = (torch.log_softmax(z.double(), -1).numpy() for z in (first, second))
    at = (np.arange(12), targets.numpy())
    np.testing.assert_allclose(found["kl_nats"], direct_divergence(first, second), rtol=1e-6, atol=1e-14)
    np.testing.assert_array_equal(found["same_top"], log_p.argmax(-1) == log_q.argmax(-1))
    np.testing.assert_allclose(found["target_prob_change"], np.exp(log_q[at]) - np.exp(log_p[at]), atol=1e-14)
    np.testing.assert_allclose(found["first_loss_nats"], -log_p[at], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found["second_loss_nats"], -log_q[at], rtol=1e-12, atol=1e-14)


def test_confident_rows_keep_their_digits():
    first = torch.tensor([[0.0, -25.0, -30.0], [0.0, -25.0, -30.0], [0.0, -40.0, -90.0]])
    second = torch.tensor([[0.0, -25.5, -30.0], [0.0, -20.0, -31.0], [0.0, -30.0, -5.0]])
    found = rows_of(first, second, [1, 1, 1])
    expected = [exact_divergence(*rows) for rows in zip(first, second, strict=True)]
    assert 0 < expected[0] < 1e-11
    np.testing.assert_allclose(found["kl_nats"], expected, rtol=1e-9)
    change = np.exp([-25.5, -20.0, -30.0]) - np.exp([-25.0, -25.0, -40.0])
    np.testing.assert_allclose(found["target_prob_change"], change, rtol=1e-2)


def test_huge_divergences_neither_overflow_nor_lose_the_mass_that_the_first_gives_nothing():
    # The first puts everything on entry 0, the second on entry 1; the divergence is the gap.
    first = torch.tensor([[1000.0, 0.0, 0.0], [1e30, 0.0, 0.0]])
    second = torch.tensor([[0.0, 1000.0, 0.0], [0.0, 2e30, 0.0]])
    found = rows_of(first, second, [0, 0])
    np.testing.assert_allclose(found["kl_nats"], [1000.0, float(torch.tensor(2e30))], rtol=1e-12)
    np.testing.assert_allclose(found["target_prob_change"], -1.0)
    assert not found["same_top"].any()


@pytest.mark.parametrize("vocab", [5, 257, 50_257])
def test_equal_rows_are_exactly_alike(vocab):
    first, _, targets = pair_of_rows(vocab, 1.0, rows=9)
    found = rows_of(first, first.clone(), targets)
    assert (found["kl_nats"] == 0.0).all()
    assert found["same_top"].all()
    assert (found["target_prob_change"] == 0.0).all()
    np.testing.assert_array_equal(found["first_loss_nats"], found["second_loss_nats"])


def test_a_constant_added_to_the_logits_changes_nothing():
    first = torch.tensor([[1.0, 2.0, -3.0, 0.5]])
    found = rows_of(first, first + 8.0, [2])  # exact in float32
    assert found["kl_nats"][0] == 0.0
    assert found["target_prob_change"][0] == 0.0


def test_the_divergence_is_of_the_first_from_the_second():
    first, second = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    forward = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    backward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert rows_of(first, second, [0])["kl_nats"][0] == pytest.approx(forward, rel=1e-6)
    assert rows_of(second, first, [0])["kl_nats"][0] == pytest.approx(backward, rel=1e-6)


def test_among_equals_the_first_entry_is_the_choice():
    first = torch.tensor([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    second = torch.tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    found = rows_of(first, second, [0, 0, 0])
    assert found["same_top"].tolist() == [True, False, True]
    assert found["kl_nats"][2] == 0.0


def test_masked_entries():
    inf = math.inf
    log2 = math.log(2.0)
    first = torch.tensor([[0.0, 0.0, -inf], [0.0, -inf, -inf], [0.0, 0.0, 0.0], [0.0, -800.0, 0.0], [0.0, -inf, 0.0]])
    second = torch.tensor([[0.0, 0.0, -inf], [0.0, 0.0, -inf], [0.0, 0.0, -inf], [0.0, -inf, 0.0], [0.0, 900.0, 0.0]])
    found = rows_of(first, second, [0, 0, 0, 0, 0])
    # Masked by both; by the first only: log 2; by the second only: infinite, even where float64 has p = 0.
    np.testing.assert_allclose(found["kl_nats"], [0.0, log2, inf, inf, 900.0 - log2])
    np.testing.assert_allclose(found["first_loss_nats"], [log2, 0.0, math.log(3.0), log2, log2])
    np.testing.assert_allclose(found["target_prob_change"], [0.0, -0.5, 1 / 6, 0.0, -0.5], atol=1e-15)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_make_the_loss_of_their_model_none(wrong):
    good, bad = torch.zeros((1, 4)), torch.tensor([[0.0, wrong, 0.0, 0.0]])
    assert math.isnan(rows_of(bad, good, [0])["first_loss_nats"][0])
    assert math.isfinite(rows_of(bad, good, [0])["second_loss_nats"][0])
    assert math.isnan(rows_of(good, bad, [0])["second_loss_nats"][0])


def test_blocks_and_reused_buffers_change_nothing(monkeypatch):
    first, second, targets = pair_of_rows(257, 0.3, rows=23)
    whole = rows_of(first, second, targets)
    workspace = Workspace()
    rows_of(*pair_of_rows(50, 0.3, rows=40), workspace)
    monkeypatch.setattr(divergence, "BLOCK_ELEMENTS", 257 * 5)
    blocks = rows_of(first, second, targets, workspace)
    one_by_one = [rows_of(first[i : i + 1], second[i : i + 1], targets[i : i + 1], workspace) for i in range(23)]
    for name, values in whole.items():
        np.testing.assert_array_equal(blocks[name], values)
        np.testing.assert_allclose(np.concatenate([row[name] for row in one_by_one]), values, rtol=1e-12)
    assert max(buffer.numel() for buffer in workspace._held.values()) <= 40 * 50


def test_the_logits_are_only_read():
    first, second, targets = pair_of_rows(31, 1.0)
    copies = first.clone(), second.clone()
    rows_of(first, second, targets)
    assert torch.equal(first, copies[0])
    assert torch.equal(second, copies[1])


def test_no_rows_give_no_rows():
    found = rows_of(torch.empty((0, 7)), torch.empty((0, 7)), torch.empty(0, dtype=torch.long))
    assert {len(values) for values in found.values()} == {0}


def test_losses_and_first_choices_are_those_of_the_pass():
    first, second, targets = pair_of_rows(257, 0.5, rows=50)
    found = rows_of(first, second, targets)
    one, _ = row_statistics(first, targets, Workspace())
    other, _ = row_statistics(second, targets, Workspace())
    np.testing.assert_allclose(found["first_loss_nats"], one.loss_nats, atol=1e-6)
    np.testing.assert_allclose(found["second_loss_nats"], other.loss_nats, atol=1e-6)
    np.testing.assert_array_equal(found["same_top"], one.top_id == other.top_id)
