"""The columns against closed forms (the numbers of the oracles) and against float64 on random rows."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from float64_statistics import assert_close, reference
from torch.nn import functional

from lossprobe.plan.part_scores import LADDER_TEMPERATURES
from lossprobe.scoring import compiled, kernels
from lossprobe.scoring.histogram import HistogramBins, probability_histogram
from lossprobe.scoring.ladder import temperature_ladder
from lossprobe.scoring.statistics import Workspace, row_statistics

BINS = HistogramBins()


def by_tensors(rows, targets, workspace):
    """What runs on a GPU."""
    measured, centred = row_statistics(rows, targets, workspace)
    return measured, probability_histogram(centred, targets, BINS)


def by_compiled_loops(rows, targets, workspace):
    """What runs on a CPU."""
    measured = compiled.measure_rows(rows, targets, torch.zeros(len(rows), dtype=torch.bool), BINS, workspace)
    return measured.statistics, measured.histogram


@pytest.fixture(params=[by_tensors, by_compiled_loops])
def measure(request):
    """Return rows, targets → statistics and histograms, by each of the two ways that there are."""

    def run(rows, targets, workspace=None):
        return request.param(torch.as_tensor(rows), torch.as_tensor(targets), workspace or Workspace())

    return run


@pytest.fixture
def statistics(measure):
    """Return rows, targets → statistics."""
    return lambda rows, targets: measure(rows, targets)[0]


def compare(statistics, rows: torch.Tensor, targets: torch.Tensor, expected=None) -> None:
    assert_close(statistics(rows, targets), expected or reference(rows, targets))


@pytest.mark.parametrize("vocab", [2, 7, 512, 50_257])
@pytest.mark.parametrize("scale", [0.01, 1.0, 12.0])
@pytest.mark.parametrize("offset", [0.0, -60.0, 200.0])
def test_every_column_agrees_with_float64(statistics, vocab, scale, offset):
    compare(statistics, *random_rows(vocab, scale, offset), reference_of(vocab, scale, offset))


def random_rows(vocab: int, scale: float, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    rows = torch.randn((24, vocab), generator=generator) * scale + offset
    return rows, torch.randint(vocab, (24,), generator=generator)


@functools.cache  # both ways of measuring are compared with it
def reference_of(vocab: int, scale: float, offset: float) -> dict[str, torch.Tensor]:
    return reference(*random_rows(vocab, scale, offset))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_heads_with_ties(statistics, dtype):
    generator = torch.Generator().manual_seed(5)
    rows = (torch.randn((64, 300), generator=generator) * 2).to(dtype)
    targets = torch.randint(300, (64,), generator=generator)
    compare(statistics, rows.float(), targets)
    measured = statistics(rows, targets)
    assert int((measured.ties > 1).sum()) > 0, "a half-precision head has ties"


def test_masked_entries(statistics):
    generator = torch.Generator().manual_seed(6)
    rows = torch.randn((8, 50), generator=generator)
    rows[:4, 10:40] = -torch.inf
    rows[4, 1:] = -torch.inf  # a single entry left
    targets = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7])
    compare(statistics, rows, targets)
    measured = statistics(rows, targets)
    assert measured.masked.tolist() == [30, 30, 30, 30, 49, 0, 0, 0]
    assert measured.loss_nats[4] == 0.0


def test_masked_target_has_infinite_loss_and_nan_stays_nan(statistics):
    assert math.isinf(statistics([[0.0, -math.inf, 1.0]], [1]).loss_nats[0])
    assert math.isnan(statistics([[0.0, math.nan, 1.0]], [0]).loss_nats[0])


def test_the_logits_are_left_alone(measure):
    rows = torch.randn((4, 9), generator=torch.Generator().manual_seed(1))
    before = rows.clone()
    measure(rows, torch.tensor([0, 1, 2, 3]))
    assert torch.equal(rows, before)


@pytest.mark.parametrize("vocab", [2, 10, 50_257])
@pytest.mark.parametrize("shift", [0.0, -30.0, 1000.0])
def test_uniform_rows(statistics, vocab, shift):
    row = statistics(torch.full((1, vocab), shift), [vocab - 1])
    assert row.loss_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.entropy_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.uniform_loss_nats[0] == pytest.approx(math.log(vocab), abs=1e-6)
    assert row.varentropy[0] == pytest.approx(0.0, abs=1e-6)
    assert row.sum_p2[0] == pytest.approx(1 / vocab, rel=1e-6)
    assert (row.rank[0], row.ties[0], row.top_id[0], row.margin_nats[0]) == (0, vocab, 0, 0.0)


def test_shifting_the_logits_changes_only_log_z(statistics):
    # Steps of 1/64 stay exact in float32 when 64 is added.
    rows = torch.randint(-200, 200, (16, 99), generator=torch.Generator().manual_seed(2)) / 64.0
    targets = torch.arange(16)
    plain, shifted = statistics(rows, targets), statistics(rows + 64.0, targets)
    for name in ("loss_nats", "entropy_nats", "varentropy", "uniform_loss_nats", "sum_p2", "margin_nats", "top_prob"):
        assert torch.equal(getattr(plain, name), getattr(shifted, name)), name
    torch.testing.assert_close(shifted.log_z, plain.log_z + 64.0, atol=0, rtol=1e-15)


@pytest.mark.parametrize("a", [0.5, 3.0, 20.0])
def test_two_logits(statistics, a):
    s = 1.0 / (1.0 + math.exp(a))  # the probability of the other entry
    row = statistics([[a, 0.0]], [0])
    assert row.loss_nats[0] == pytest.approx(math.log1p(math.exp(-a)), rel=1e-6)
    assert row.varentropy[0] == pytest.approx(s * (1 - s) * a * a, rel=1e-6)
    assert row.margin_nats[0] == a


def test_a_confident_row_keeps_its_digits(statistics):
    # log1p(6 e^-20): plain float32 logsumexp - z_y would give 0 here.
    row = statistics([[20.0, 0, 0, 0, 0, 0, 0]], [0])
    assert float(row.loss_nats[0]) == pytest.approx(1.23669e-8, rel=1e-5)


def test_a_gap_of_120_nats_is_finite(statistics):
    assert float(statistics([[120.0, 0.0]], [1]).loss_nats[0]) == 120.0


def test_the_worked_row(statistics):
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
def test_the_smoothed_loss_of_torch_follows_from_two_columns(statistics, epsilon):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn((32, 777), generator=generator, dtype=torch.float64) * 4
    targets = torch.randint(777, (32,), generator=generator)
    row = statistics(rows, targets)
    smoothed = (1 - epsilon) * row.loss_nats + epsilon * row.uniform_loss_nats
    expected = functional.cross_entropy(rows, targets, label_smoothing=epsilon, reduction="none")
    torch.testing.assert_close(smoothed, expected, atol=2e-6, rtol=0)


def test_bounds_between_columns(statistics):
    rows = torch.randn((200, 64), generator=torch.Generator().manual_seed(4)) * 5
    row = statistics(rows, torch.zeros(200, dtype=torch.long))
    assert bool((torch.exp(-row.entropy_nats) <= row.sum_p2 + 1e-12).all())
    assert bool((row.uniform_loss_nats >= math.log(64) - 1e-9).all())
    assert bool((row.entropy_nats <= math.log(64) + 1e-9).all())


def test_slope_and_curvature_of_the_loss_in_inverse_temperature(statistics):
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


def test_histogram_counts_every_probability_once(measure):
    generator = torch.Generator().manual_seed(9)
    rows = torch.randn((50, 321), generator=generator) * 6
    rows[:5, 100:] = -torch.inf
    targets = torch.randint(100, (50,), generator=generator)
    _, (entries, mass, hits) = measure(rows, targets)
    assert entries.sum(-1).tolist() == [321] * 50
    assert hits.sum(-1).tolist() == [1] * 50
    assert bool((entries[:5, 0] >= 221).all()), "what is masked has probability 0"
    assert bool((hits <= entries).all())
    np.testing.assert_allclose(mass.sum(-1), np.ones(50), rtol=1e-6)


def test_histogram_bins_hold_what_they_say(measure):
    # One row of known probabilities: 0.9 in the top bin (log10 = -0.0458), 0.1 at its own edge region, 1e-15 below all.
    logits = torch.log(torch.tensor([[0.9, 0.0999, 1e-4, 1e-15]], dtype=torch.float64))
    _, (entries, mass, hits) = measure(logits, [1])
    expected = {BINS.count - 1: 0.9, BINS.count - 11: 0.0999, 0: 1e-15}
    for bin_, p in expected.items():
        assert entries[0, bin_] == 1
        assert float(mass[0, bin_]) == pytest.approx(p, rel=1e-5)
    assert hits[0].nonzero().flatten().tolist() == [BINS.count - 11]


@pytest.mark.parametrize("vocab", [1, 2, 63, 64, 65, 500, 511, 513, 2000])
def test_histogram_agrees_with_numpy(measure, vocab):
    generator = torch.Generator().manual_seed(10)
    rows = (torch.randn((40, vocab), generator=generator) * 3).double()
    targets = torch.randint(vocab, (40,), generator=generator)
    _, (entries, mass, hits) = measure(rows, targets)
    p = torch.softmax(rows, -1).numpy()
    edges = np.concatenate([[-np.inf], np.arange(-120, 0) / 10, [np.inf]])
    for weights, actual in ((None, entries), (p.ravel(), mass)):
        expected, _ = np.histogram(np.log10(p).ravel(), edges, weights=weights)
        # float32 rounding can move a probability over an edge: rarely, and never by more than one bin.
        moved = np.abs(np.cumsum(actual.sum(0).numpy()) - np.cumsum(expected))
        assert moved.max() <= (3 if weights is None else 1e-3)
    expected, _ = np.histogram(np.log10(p[np.arange(40), targets]), edges)
    assert np.abs(np.cumsum(hits.sum(0).numpy()) - np.cumsum(expected)).max() <= 1


def test_compiled_loops_refuse_a_target_that_is_no_entry():
    """They write to memory unchecked: an id from a damaged plan must not get there."""
    for target in (-1, 5):
        with pytest.raises(IndexError, match="none of the 5 entries"):
            by_compiled_loops(torch.zeros((1, 5)), torch.tensor([target]), Workspace())


def test_without_a_place_for_compiled_code_it_is_compiled_anew(monkeypatch):
    """A read-only installation without a home folder."""
    import numba

    plain = numba.njit

    def without_cache(*arguments, **options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*arguments, **options)

    monkeypatch.setattr(numba, "njit", without_cache)
    total = kernels.compiled_loop()(lambda x: x.sum())
    assert total(np.ones(3)) == 3.0


def test_rows_that_are_not_contiguous(measure):
    rows = torch.randn((30, 8), generator=torch.Generator().manual_seed(13))
    targets = torch.randint(30, (8,), generator=torch.Generator().manual_seed(14))
    assert torch.equal(measure(rows.T, targets)[0].loss_nats, measure(rows.T.contiguous(), targets)[0].loss_nats)


def ladder_by_compiled_loops(rows):
    """What runs on a CPU."""
    targets, sampled = torch.zeros(len(rows), dtype=torch.long), torch.ones(len(rows), dtype=torch.bool)
    return compiled.measure_rows(rows, targets, sampled, BINS, Workspace()).ladder


COUNTED = compiled.LEAST_COUNTED


def rows_of_16_bits(dtype, vocab: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of all kinds: ordinary ones, masked ones, zeros of both signs, one value only, huge and tiny ones."""
    generator = torch.Generator().manual_seed(vocab)
    rows = (torch.randn((16, vocab), generator=generator) * scale).to(dtype)
    targets = torch.randint(vocab, (16,), generator=generator)
    rows[1, ::3] = -torch.inf
    rows[1, targets[1]] = 1.0
    rows[2] = -rows[2].abs()
    rows[2, 5::7], rows[2, 2::7] = 0.0, -0.0  # the top, and equal to each other
    rows[3] = rows[3, 0]
    rows[4] = torch.finfo(dtype).min
    rows[4, targets[4]] = 2.0
    rows[5, :99] = torch.finfo(dtype).smallest_normal / 4  # subnormal
    rows[6] = -torch.inf
    rows[6, 7] = 3.0
    targets[6] = 7
    rows[7, 1] = 60.0  # a confident row, right and wrong
    rows[8, 1] = 60.0
    targets[7] = 1
    targets[9] = rows[9].argmax()
    rows[9, -1] = rows[9].amax()  # the top twice
    rows[10] = torch.arange(vocab).to(torch.int32).to(dtype) / vocab
    return rows, targets


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocab", [COUNTED, COUNTED + 1, 50_257])
@pytest.mark.parametrize("scale", [0.01, 1.0, 12.0])
def test_counted_rows_agree_with_float64(dtype, vocab, scale):
    rows, targets = rows_of_16_bits(dtype, vocab, scale)
    assert compiled.is_counted(rows)
    sampled = torch.arange(len(rows)) % 3 < 2
    measured = compiled.measure_rows(rows, targets, sampled, BINS, Workspace())
    assert_close(measured.statistics, reference(rows, targets))
    for index, temperature in enumerate(LADDER_TEMPERATURES):
        expected = torch.logsumexp(rows[sampled].double() / temperature, -1)
        torch.testing.assert_close(measured.ladder[:, index], expected, atol=2e-6, rtol=2e-7)
    one_by_one = compiled.measure_rows(rows.float(), targets, sampled, BINS, Workspace())
    moved = (measured.histogram.cumsum(-1) - one_by_one.histogram.cumsum(-1)).abs().amax(dim=-1)
    # Rounding may move a number that lies at an edge, with all entries that equal it.
    log_p = torch.log_softmax(rows.double(), -1)
    place = log_p * BINS.per_nat
    movable = ((place - place.round()).abs() < 1e-3).double()
    allowed = [movable.sum(-1), (movable * log_p.exp()).sum(-1) + 1e-6, movable.gather(1, targets[:, None])[:, 0]]
    assert (moved <= torch.stack(allowed)).all()
    assert measured.histogram[0].sum(-1).tolist() == [vocab] * len(rows)
    torch.testing.assert_close(measured.histogram[1].sum(-1), torch.ones(len(rows)).double(), atol=1e-6, rtol=0)


def test_a_counted_row_leaves_nothing_to_the_next():
    rows, targets = rows_of_16_bits(torch.bfloat16, COUNTED, 3.0)
    rows[0, 3] = torch.nan
    sampled = torch.ones(len(rows), dtype=torch.bool)
    together = compiled.measure_rows(rows, targets, sampled, BINS, Workspace())
    for at in range(len(rows)):
        own = slice(at, at + 1)
        alone = compiled.measure_rows(rows[own], targets[own], sampled[own], BINS, Workspace())
        assert torch.equal(alone.histogram.nan_to_num(), together.histogram[:, own].nan_to_num())
        assert torch.equal(alone.statistics.log_z.nan_to_num(), together.statistics.log_z[own].nan_to_num())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counted_rows_of_numbers_that_are_none(dtype):
    rows = torch.zeros((5, COUNTED), dtype=dtype)
    rows[0, 5] = torch.nan
    rows[1, 5] = torch.inf
    rows[2] = -torch.inf
    rows[3, 9] = -torch.inf
    rows[4] = torch.nan
    targets = torch.tensor([0, 0, 0, 9, 0])
    loss = by_compiled_loops(rows, targets, Workspace())[0].loss_nats
    assert not loss.isfinite().any()
    assert loss[3] == torch.inf


@pytest.mark.parametrize("vocab", [40, 1300])
@pytest.mark.parametrize("ladder", [temperature_ladder, ladder_by_compiled_loops])
def test_ladder_agrees_with_float64(vocab, ladder):
    rows = torch.randn((30, vocab), generator=torch.Generator().manual_seed(11)) * 8
    rows[:3, 30:] = -torch.inf
    values = ladder(rows)
    assert values.shape == (30, 17)
    assert len(LADDER_TEMPERATURES) == 17
    assert LADDER_TEMPERATURES[8] == 1.0
    for index, temperature in enumerate(LADDER_TEMPERATURES):
        expected = torch.logsumexp(rows.double() / temperature, -1)
        torch.testing.assert_close(values[:, index], expected, atol=2e-6, rtol=2e-7)


def test_a_workspace_is_reused_for_smaller_chunks_and_leaks_nothing_into_the_next(measure):
    generator = torch.Generator().manual_seed(12)
    workspace = Workspace()
    large, small = torch.randn((9, 30), generator=generator), torch.randn((4, 30), generator=generator)
    first, _ = measure(large, torch.arange(9), workspace)
    kept = first.entropy_nats.clone()
    second, _ = measure(small, torch.arange(4), workspace)
    alone, _ = measure(small, torch.arange(4))
    assert torch.equal(second.entropy_nats, alone.entropy_nats)
    assert torch.equal(first.entropy_nats, kept)
    held = workspace.empty("weight", small[:2]).untyped_storage()
    assert held.data_ptr() == workspace.empty("weight", small[:1]).untyped_storage().data_ptr()
