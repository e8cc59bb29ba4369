"""The columns against closed forms (the numbers of the oracles) and against float64 on random rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from lossprobe.scoring.histogram import HistogramBins, probability_histogram
from lossprobe.scoring.statistics import LADDER_TEMPERATURES, Workspace, row_statistics, temperature_ladder

BINS = HistogramBins()


def statistics(rows, targets):
    result, _ = row_statistics(torch.as_tensor(rows), torch.as_tensor(targets), Workspace())
    return result


def reference(rows: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every column by its definition, in float64, from explicit probabilities."""
    z = rows.double()
    log_z = torch.logsumexp(z, -1)
    log_p = z - log_z[:, None]
    present = torch.isfinite(log_p)
    finite = log_p.masked_fill(~present, 0.0)
    p = log_p.exp()
    target = z.gather(1, targets[:, None])
    entropy = -(p * finite).sum(-1)
    others = z.scatter(1, targets[:, None], -torch.inf)
    return {
        "loss_nats": -log_p.gather(1, targets[:, None])[:, 0],
        "rank": (z > target).sum(-1),
        "ties": (z == target).sum(-1),
        "entropy_nats": entropy,
        "varentropy": (p * (finite + entropy[:, None]) ** 2).sum(-1),
        "top_id": torch.tensor([int(np.argmax(row)) for row in z.numpy()]),
        "top_prob": p.max(-1).values,
        "margin_nats": target[:, 0] - others.max(-1).values,
        "log_z": log_z,
        "uniform_loss_nats": -finite.sum(-1) / present.sum(-1),
        "sum_p2": (p * p).sum(-1),
        "masked": (~present).sum(-1),
    }


# A float32 row holds numbers of size 60 to 4e-6 each; what is combined from them is held to these limits, relative to
# the column's own size. Counts and ids must be exact.
RELATIVE = {"varentropy": 2e-6, "sum_p2": 2e-6, "uniform_loss_nats": 5e-7}


def compare(rows: torch.Tensor, targets: torch.Tensor) -> None:
    measured, expected = statistics(rows, targets), reference(rows, targets)
    for name, value in expected.items():
        actual = getattr(measured, name)
        if value.dtype.is_floating_point:
            relative = RELATIVE.get(name, 2e-7)
            torch.testing.assert_close(actual, value, atol=1e-6, rtol=relative, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert actual.tolist() == value.tolist(), name


@pytest.mark.parametrize("vocab", [2, 7, 512, 50_257])
@pytest.mark.parametrize("scale", [0.01, 1.0, 12.0])
@pytest.mark.parametrize("offset", [0.0, -60.0, 200.0])
def test_every_column_agrees_with_float64(vocab, scale, offset):
    generator = torch.Generator().manual_seed(vocab)
    rows = torch.randn((24, vocab), generator=generator) * scale + offset
    compare(rows, torch.randint(vocab, (24,), generator=generator))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_heads_with_ties(dtype):
    generator = torch.Generator().manual_seed(5)
    rows = (torch.randn((64, 300), generator=generator) * 2).to(dtype)
    targets = torch.randint(300, (64,), generator=generator)
    compare(rows.float(), targets)
    measured = statistics(rows, targets)
    assert int((measured.ties > 1).sum()) > 0, "a half-precision head has ties"


def test_masked_entries():
    generator = torch.Generator().manual_seed(6)
    rows = torch.randn((8, 50), generator=generator)
    rows[:4, 10:40] = -torch.inf
    rows[4, 1:] = -torch.inf  # a single entry left
    targets = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7])
    compare(rows, targets)
    measured = statistics(rows, targets)
    assert measured.masked.tolist() == [30, 30, 30, 30, 49, 0, 0, 0]
    assert measured.loss_nats[4] == 0.0


def test_masked_target_has_infinite_loss_and_nan_stays_nan():
    assert math.isinf(statistics([[0.0, -math.inf, 1.0]], [1]).loss_nats[0])
    assert math.isnan(statistics([[0.0, math.nan, 1.0]], [0]).loss_nats[0])


def test_the_logits_are_left_alone():
    rows = torch.randn((4, 9), generator=torch.Generator().manual_seed(1))
    before = rows.clone()
    row_statistics(rows, torch.tensor([0, 1, 2, 3]), Workspace())
    assert torch.equal(rows, before)


@pytest.mark.parametrize("vocab", [2, 10, 50_257])
@pytest.mark.parametrize("shift", [0.0, -30.0, 1000.0])
def test_uniform_rows(vocab, shift):
    row = statistics(torch.full((1, vocab), shift), [vocab - 1])
    assert row.loss_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.entropy_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.uniform_loss_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.varentropy[0] == pytest.approx(0.0, abs=1e-6)
    assert row.sum_p2[0] == pytest.approx(1 / vocab, rel=1e-6)
    assert (row.rank[0], row.ties[0], row.top_id[0], row.margin_nats[0]) == (0, vocab, 0, 0.0)


def test_shifting_the_logits_changes_only_log_z():
    # Steps of 1/64 stay exact in float32 when 64 is added.
    rows = torch.randint(-200, 200, (16, 99), generator=torch.Generator().manual_seed(2)) / 64.0
    targets = torch.arange(16)
    plain, shifted = statistics(rows, targets), statistics(rows + 64.0, targets)
    for name in ("loss_nats", "entropy_nats", "varentropy", "uniform_loss_nats", "sum_p2", "margin_nats", "top_prob"):
        assert torch.equal(getattr(plain, name), getattr(shifted, name)), name
    torch.testing.assert_close(shifted.log_z, plain.log_z + 64.0, atol=0, rtol=1e-15)


@pytest.mark.parametrize("a", [0.5, 3.0, 20.0])
def test_two_logits(a):
    s = 1.0 / (1.0 + math.exp(a))  # the probability of the other entry
    row = statistics([[a, 0.0]], [0])
    assert row.loss_nats[0] == pytest.approx(math.log1p(math.exp(-a)), rel=1e-6)
    assert row.varentropy[0] == pytest.approx(s * (1 - s) * a * a, rel=1e-6)
    assert row.margin_nats[0] == a


def test_a_confident_row_keeps_its_digits():
    # log1p(6 e^-20): plain float32 logsumexp - z_y would give 0 here.
    row = statistics([[20.0, 0, 0, 0, 0, 0, 0]], [0])
    assert float(row.loss_nats[0]) == pytest.approx(1.23669e-8, rel=1e-5)


def test_a_gap_of_120_nats_is_finite():
    assert float(statistics([[120.0, 0.0]], [1]).loss_nats[0]) == 120.0


def test_the_worked_row():
    row = statistics(np.log([[0.1, 0.6, 0.2, 0.1]]), [1])
    expected = {
        "loss_nats": 0.510826,
        "uniform_loss_nats": 1.681358,
        "entropy_nats": 1.088900,
        "sum_p2": 0.42,
        "varentropy": 0.549300,
        "top_prob": 0.6,
    }
    for name, value in expected.items():
        assert float(getattr(row, name)[0]) == pytest.approx(value, abs=1e-6), name
    # What later analyses derive: Brier = sum_p2 - 2 p + 1 = .22, smoothed losses of both conventions.
    p, n, u = math.exp(-0.510826), float(row.loss_nats[0]), float(row.uniform_loss_nats[0])
    assert float(row.sum_p2[0]) - 2 * p + 1 == pytest.approx(0.22, abs=1e-6)
    assert 0.9 * n + 0.1 * u == pytest.approx(0.627879, abs=1e-6)
    assert 0.9 * n + 0.1 * (4 * u - n) / 3 == pytest.approx(0.666897, abs=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_the_smoothed_loss_of_torch_follows_from_two_columns(epsilon):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn((32, 777), generator=generator, dtype=torch.float64) * 4
    targets = torch.randint(777, (32,), generator=generator)
    row = statistics(rows, targets)
    smoothed = (1 - epsilon) * row.loss_nats + epsilon * row.uniform_loss_nats
    expected = functional.cross_entropy(rows, targets, label_smoothing=epsilon, reduction="none")
    torch.testing.assert_close(smoothed, expected, atol=2e-6, rtol=0)


def test_bounds_between_columns():
    rows = torch.randn((200, 64), generator=torch.Generator().manual_seed(4)) * 5
    row = statistics(rows, torch.zeros(200, dtype=torch.long))
    assert bool((torch.exp(-row.entropy_nats) <= row.sum_p2 + 1e-12).all())
    assert bool((row.uniform_loss_nats >= math.log(64) - 1e-9).all())
    assert bool((row.entropy_nats <= math.log(64) + 1e-9).all())


def test_slope_and_curvature_of_the_loss_in_inverse_temperature():
    # d mean NLL / d beta at beta = 1 is mean(n) - mean(H), the second derivative mean(W).
    generator = torch.Generator().manual_seed(8)
    rows = torch.randn((64, 40), generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(40, (64,), generator=generator)
    row = statistics(rows, targets)

    def mean_loss(beta: float) -> float:
        return float(functional.cross_entropy(rows * beta, targets))

    h = 1e-4
    slope = (mean_loss(1 + h) - mean_loss(1 - h)) / (2 * h)
    curvature = (mean_loss(1 + h) - 2 * mean_loss(1.0) + mean_loss(1 - h)) / h**2
    assert float(row.loss_nats.mean() - row.entropy_nats.mean()) == pytest.approx(slope, abs=1e-5)
    assert float(row.varentropy.mean()) == pytest.approx(curvature, abs=1e-4)


def test_histogram_counts_every_probability_once():
    generator = torch.Generator().manual_seed(9)
    rows = torch.randn((50, 321), generator=generator) * 6
    rows[:5, 100:] = -torch.inf
    targets = torch.randint(100, (50,), generator=generator)
    groups = torch.arange(50) % 3
    _, centred = row_statistics(rows, targets, Workspace())
    pairs, mass, hits = probability_histogram(centred, targets, groups, 3, BINS)
    sizes = [17, 17, 16]
    assert pairs.sum(-1).tolist() == [321 * size for size in sizes]
    assert hits.sum(-1).tolist() == sizes
    np.testing.assert_allclose(mass.sum(-1), sizes, rtol=1e-6)


def test_histogram_bins_hold_what_they_say():
    # One row of known probabilities: 0.9 in the top bin (log10 = -0.0458), 0.1 at its own edge region, 1e-15 below all.
    logits = torch.log(torch.tensor([[0.9, 0.0999, 1e-4, 1e-15]], dtype=torch.float64))
    _, centred = row_statistics(logits, torch.tensor([1]), Workspace())
    pairs, mass, hits = probability_histogram(centred, torch.tensor([1]), torch.tensor([0]), 1, BINS)
    expected = {BINS.count - 1: 0.9, BINS.count - 11: 0.0999, 0: 1e-15}
    for bin_, p in expected.items():
        assert pairs[0, bin_] == 1
        assert float(mass[0, bin_]) == pytest.approx(p, rel=1e-5)
    assert hits[0].nonzero().flatten().tolist() == [BINS.count - 11]


def test_histogram_agrees_with_numpy():
    generator = torch.Generator().manual_seed(10)
    rows = torch.randn((40, 500), generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(500, (40,), generator=generator)
    _, centred = row_statistics(rows, targets, Workspace())
    pairs, _, _ = probability_histogram(centred, targets, torch.zeros(40, dtype=torch.long), 1, BINS)
    p = torch.softmax(rows, -1).numpy().ravel()
    edges = np.concatenate([[-np.inf], np.arange(-120, 0) / 10, [1.0]])
    expected, _ = np.histogram(np.log10(p), edges)
    # float32 rounding can move a probability over an edge: rarely, and never by more than one bin.
    assert np.abs(np.cumsum(pairs[0].numpy()) - np.cumsum(expected)).max() <= 3


def test_ladder_agrees_with_float64():
    rows = torch.randn((30, 400), generator=torch.Generator().manual_seed(11)) * 8
    rows[:3, 50:] = -torch.inf
    _, centred = row_statistics(rows, torch.zeros(30, dtype=torch.long), Workspace())
    ladder = temperature_ladder(centred, rows.double().max(-1).values)
    assert len(LADDER_TEMPERATURES) == 17
    assert LADDER_TEMPERATURES[8] == 1.0
    for index, temperature in enumerate(LADDER_TEMPERATURES):
        expected = torch.logsumexp(rows.double() / temperature, -1)
        torch.testing.assert_close(ladder[:, index], expected, atol=2e-6, rtol=2e-7)


def test_a_workspace_is_reused_for_smaller_chunks_and_leaks_nothing_into_the_next():
    generator = torch.Generator().manual_seed(12)
    workspace = Workspace()
    large, small = torch.randn((9, 30), generator=generator), torch.randn((4, 30), generator=generator)
    first, _ = row_statistics(large, torch.arange(9), workspace)
    kept = first.entropy_nats.clone()
    second, centred = row_statistics(small, torch.arange(4), workspace)
    alone, _ = row_statistics(small, torch.arange(4), Workspace())
    assert torch.equal(second.entropy_nats, alone.entropy_nats)
    assert torch.equal(first.entropy_nats, kept)
    assert centred.shifted.untyped_storage().nbytes() == 9 * 30 * 4
