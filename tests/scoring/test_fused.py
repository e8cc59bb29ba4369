"""The fused kernels of a GPU, run on the CPU by Triton's interpreter, against float64; what decides on their use."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import fused_cases
import numpy as np
import pytest
import torch
from fakes import ByteTokenizer, SmallModel, checkpoint, uniform_logits
from float64_statistics import assert_close, reference

from lossprobe.cli.doctor import show_gpu
from lossprobe.errors import CheckpointError
from lossprobe.passes.engines import LocalEngine, Part, PartOptions
from lossprobe.plan.rows import WindowPolicy, cut_parts, plan_documents
from lossprobe.scoring import accelerated, head, ladder, measure, scorer
from lossprobe.scoring.histogram import MASS_BITS, HistogramBins, probability_histogram
from lossprobe.scoring.measure import PassOptions
from lossprobe.scoring.scorer import score_part
from lossprobe.scoring.statistics import MeasuredRows, Workspace, row_statistics

BINS = HistogramBins()
CASES = fused_cases.cases()
LADDERS = ("V = 1300, scale 12.0, offset 200.0", "bfloat16 with ties", "masked")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """Return what the kernels make of each case."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: there is none for this system")
    file = tmp_path_factory.mktemp("fused") / "found.pt"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", fused_cases.__file__, str(file)]
    subprocess.run(command, env=environment, check=True)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_every_column_agrees_with_float64(interpreted, name):
    rows, targets = CASES[name]
    assert_close(SimpleNamespace(**interpreted["found"][name]), reference(rows.float(), targets))


def test_a_confident_row_keeps_its_digits(interpreted):
    rows, targets = CASES["confident"]
    losses = interpreted["found"]["confident"]["loss_nats"]
    others = (rows.double() - rows.double().amax(dim=-1, keepdim=True)).scatter(1, rows.argmax(-1)[:, None], -torch.inf)
    expected = torch.log1p(others.exp().sum(dim=-1))
    torch.testing.assert_close(losses[:2], expected[:2], atol=0, rtol=1e-6)
    assert 0 < losses[1] < 1e-12
    assert losses[2] == pytest.approx(120.0 - float(rows[2, targets[2]]), rel=1e-7)


def test_rows_without_a_finite_loss(interpreted):
    assert not torch.isfinite(interpreted["found"]["broken"]["loss_nats"]).any()


def test_half_precision_has_ties(interpreted):
    assert int(interpreted["found"]["bfloat16 with ties"]["ties"].max()) > 1


def test_no_rows(interpreted):
    assert {len(values) for values in interpreted["found"]["nothing"].values()} == {0}


@pytest.mark.parametrize("name", CASES)
def test_the_histogram_agrees_with_float64(interpreted, name):
    rows, targets = CASES[name]
    whole = interpreted["found"][name]["whole"]
    assert whole.dtype == torch.int64
    entries, mass, hits = BINS.from_whole(whole)
    p = torch.softmax(rows.double(), dim=-1).numpy()
    assert entries.sum(dim=-1).tolist() == [rows.shape[1]] * len(rows)
    assert hits.sum(dim=-1).tolist() == [1] * len(rows)
    assert bool((hits <= entries).all())
    np.testing.assert_allclose(mass.sum(dim=-1), np.ones(len(rows)), rtol=3e-7)
    edges = np.concatenate([[-np.inf], 10.0 ** (np.arange(-120, 0) / 10), [np.inf]])
    # float32 rounding can move a probability over an edge: rarely, and never by more than one bin.
    for weights, actual, limit in ((None, entries, 3), (p.ravel(), mass, 1e-3)):
        expected, _ = np.histogram(p.ravel(), edges, weights=weights)
        assert np.abs(np.cumsum(actual.sum(0).numpy()) - np.cumsum(expected)).max() <= limit
    expected, _ = np.histogram(p[np.arange(len(p)), targets], edges)
    assert np.abs(np.cumsum(hits.sum(0).numpy()) - np.cumsum(expected)).max() <= 1


def test_the_mass_of_each_bin_keeps_its_digits(interpreted):
    rows, _ = CASES["V = 1300, scale 12.0, offset 200.0"]
    whole = interpreted["found"]["V = 1300, scale 12.0, offset 200.0"]["whole"]
    entries, mass, _ = BINS.from_whole(whole)
    p = torch.softmax(rows.double(), dim=-1)
    place = (torch.log10(p) * 10 + BINS.count).clamp(0, BINS.count - 1)
    near_an_edge = (place % 1 - 0.5).abs() > 0.4999
    expected = torch.zeros_like(mass).scatter_add_(1, place.long(), p)
    sure = torch.zeros_like(mass).scatter_add_(1, place.long(), near_an_edge.double()) == 0
    sure &= entries == torch.zeros_like(mass).scatter_add_(1, place.long(), torch.ones_like(p))
    sure[:, 0] = False
    assert int((sure & (mass > 0)).sum()) > 200
    torch.testing.assert_close(mass[sure], expected[sure], rtol=1.5e-6, atol=0)  # p of float32 logits of 200 and more
    # Bin 0 is held to units of 2^-62.
    torch.testing.assert_close(mass[:, 0], expected[:, 0], rtol=0, atol=1300 * 2.0**-62)


@pytest.mark.parametrize("name", LADDERS)
def test_ladder_sums_agree_with_float64(interpreted, name):
    z = CASES[name][0][:2].double()
    shifted = z - z.amax(dim=-1, keepdim=True)
    for at, temperature in enumerate(fused_cases.TEMPERATURES):
        for step in range(5):
            expected = (shifted * 2**step / temperature).exp().sum(dim=-1)
            actual = interpreted["found"][name]["sums"][:, at, step]
            torch.testing.assert_close(actual.log(), expected.log(), atol=2e-6, rtol=2e-7)


def test_the_probe_finds_no_difference(interpreted):
    assert interpreted["probe"] == []


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from lossprobe.scoring import fused_kernels

for kernel, types, constants in (
    (fused_kernels.measure_rows, "*{} i32 *i64 *i32 *fp64 *i32 *i64 i32", [121, 4.34, 128, 4, 2048]),
    (fused_kernels.ladder_sums, "*{} i32 *fp32 *fp64 i32", [4, 1024]),
):
    names = kernel.arg_names
    constants = dict(zip(names[-len(constants) :], constants, strict=True))
    for dtype in ("bf16", "fp16", "fp32"):
        types_of = dict(zip(names, types.format(dtype).split() + ["constexpr"] * len(constants), strict=True))
        source = ASTSource(kernel, signature=types_of, constexprs=constants, attrs={})
        print(len(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["cubin"]) > 1000)
"""


@pytest.mark.thorough  # takes 4 s
def test_the_kernels_compile_for_a_gpu(tmp_path):
    """The interpreter runs what the compiler refuses; a GPU is not needed to compile for one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: there is none for this system")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["True"] * 6


def test_units_of_mass_are_powers_of_two_at_most_the_smallest_p_of_a_bin():
    lows = [10.0 ** (BINS.lowest + max(bin_ - 1, 0) / BINS.per_decade) for bin_ in range(BINS.count)]
    ratios = np.array(lows) / 2.0 ** np.array(BINS.exponents)
    assert ratios.min() >= 1.0
    assert ratios.max() < 2.0


def whole_histogram(centred, targets):
    """Return a histogram in whole numbers, by the torch functions."""
    found = probability_histogram(centred, targets, BINS)
    units = torch.exp2(torch.tensor(BINS.exponents, dtype=torch.float64) - MASS_BITS)
    return torch.stack([found[0], found[1] / units, found[2]]).round().long()


class FakeFused:
    """In place of `fused`: the torch functions, with one of their results moved."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong

    def measure_rows(self, logits, targets, bins):
        statistics, centred = row_statistics(logits, targets, Workspace())
        whole = whole_histogram(centred, targets)
        if self.wrong == "entries":
            whole[0, 3] = whole[0, 3].roll(7)
        elif self.wrong == "mass":
            whole[1, 3] += whole[1, 3] // 10_000
        elif self.wrong not in ("", "ladder"):
            moved = getattr(statistics, self.wrong).clone()
            moved[3] += 1e-4 if moved.dtype.is_floating_point else 1
            statistics = replace(statistics, **{self.wrong: moved})
        return statistics, whole

    def ladder_sums(self, logits, temperatures):
        return ladder.ladder_sums(logits, logits.amax(dim=-1), temperatures) * (
            1.0001 if self.wrong == "ladder" else 1.0
        )


@pytest.fixture
def fake(monkeypatch):
    """Put a `FakeFused` in the place of `fused`, as if Triton were there."""

    def place(module):
        monkeypatch.setitem(sys.modules, "lossprobe.scoring.fused", module)
        monkeypatch.setattr("lossprobe.scoring.fused", module, raising=False)
        monkeypatch.setattr(accelerated, "find_spec", lambda name: name)
        accelerated.why_not.cache_clear()

    yield place
    accelerated.why_not.cache_clear()


@pytest.mark.parametrize("wrong", ["", "loss_nats", "rank", "top_id", "varentropy", "entries", "mass", "ladder"])
def test_kernels_that_differ_from_torch_are_not_used(fake, wrong):
    fake(FakeFused(wrong))
    named = {"": "", "entries": "the histogram", "mass": "the histogram", "ladder": "the ladder"}.get(wrong, wrong)
    told = f"on a probe they differ from torch in {named}" if named else ""
    assert accelerated.why_not(torch.device("cpu"), torch.float32) == told


def test_kernels_that_fail_are_not_used(fake):
    fake(SimpleNamespace())
    assert accelerated.why_not(torch.device("cpu"), torch.float32) == "Triton fails (AttributeError)"


def test_without_triton_the_torch_functions_measure(monkeypatch):
    monkeypatch.setattr(accelerated, "find_spec", lambda name: None)
    accelerated.why_not.cache_clear()
    gpu = torch.device("cuda", 0)
    assert accelerated.why_not(gpu, torch.float32) == "Triton is not installed"
    assert accelerated.fused_module(gpu, torch.float32, 100) is None
    accelerated.why_not.cache_clear()


def test_only_a_gpu_and_the_dtypes_of_the_kernels(fake, monkeypatch):
    module = FakeFused()
    fake(module)
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(accelerated, "differences", lambda device, dtype: [])
    assert accelerated.fused_module(gpu, torch.bfloat16, 262_208) is module
    assert accelerated.fused_module(gpu, torch.float64, 100) is None
    assert accelerated.fused_module(gpu, torch.bfloat16, 10**6) is None
    assert accelerated.fused_module(torch.device("cpu"), torch.bfloat16, 100) is None


def part(texts):
    documents = [ByteTokenizer().encode(text) for text in texts]
    return next(iter(cut_parts(plan_documents(documents, WindowPolicy(16, 16, 256)), 10**6)))


TEXTS = ["abcabcabd, and zebras. " * 9, "short"]


def test_whole_histograms_of_batches_are_added_up(monkeypatch):
    rows = part(TEXTS)
    expected = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(3))

    def measure_chunk(logits, targets, sampled, bins, _):
        measured = FakeFused().measure_rows(logits, targets, bins)
        return MeasuredRows(*measured, ladder.temperature_ladder(logits[sampled]))

    monkeypatch.setattr(head, "measure_chunk", measure_chunk)
    found = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(3, chunk_rows=5))
    np.testing.assert_array_equal(found.histogram[0].sum(-1), expected.histogram[0].sum(-1))
    np.testing.assert_array_equal(found.histogram[2], expected.histogram[2])
    np.testing.assert_allclose(found.histogram[1], expected.histogram[1], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(found.histogram[1].sum(-1), expected.histogram[1].sum(-1), rtol=1e-6)


@pytest.fixture
def late(monkeypatch):
    """Let results come from a GPU: their columns are wrong until the pass has waited for it."""
    coming, waited = [], []

    def run_head(*arguments, run=measure.run_head):
        result = run(*arguments)
        columns = {name: torch.full(values.shape, -1, dtype=values.dtype) for name, values in result.columns.items()}
        coming.append((columns, result.columns))
        return replace(result, device=torch.device("cuda", 0), columns=columns)

    def wait_for(marked):
        waited.append(marked)
        for columns, true in coming:
            for name, values in true.items():
                columns[name].numpy()[:] = values

    monkeypatch.setattr(measure, "run_head", run_head)
    monkeypatch.setattr(scorer, "mark", str)
    monkeypatch.setattr(scorer, "wait_for", wait_for)
    return waited


def test_results_of_a_gpu_are_read_once_a_part_when_they_are_there(late, monkeypatch):
    rows = part(TEXTS)
    found = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(2))
    assert late == ["cpu"]
    monkeypatch.undo()
    expected = score_part(checkpoint(SmallModel()), rows, 0, PassOptions(2))
    for name, values in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], values)
    np.testing.assert_array_equal(found.histogram, expected.histogram)
    np.testing.assert_array_equal(found.ladder, expected.ladder)


def wrong_after_c(ids):
    logits = uniform_logits(ids)
    logits[..., 7] = torch.where(ids == ord("c"), math.nan, 0.0)
    return logits


def test_a_loss_of_a_gpu_that_is_no_number_names_its_token(late):
    finish = scorer.queue_part(checkpoint(wrong_after_c), part(["abcd"]), 0, PassOptions())
    with pytest.raises(CheckpointError, match=r"document 0, token 4 \(id 100\): the loss is nan"):
        finish()


def test_a_gpu_gets_parts_before_the_scores_of_one_are_read(monkeypatch):
    told = []

    def queue_part(model, rows, first_row, options):
        options.advance(5)
        told.append(f"queue {first_row}")
        return lambda: told.append(f"read {first_row}") or first_row

    monkeypatch.setattr(scorer, "queue_part", queue_part)
    model = SimpleNamespace(facts=SimpleNamespace(device="cuda:0"))
    parts = [Part(number, None, number) for number in range(4)]
    found = list(LocalEngine(model).score(iter(parts), PartOptions(None, 1), told.append))
    assert found == [(each, each.first_row) for each in parts]
    assert told == ["queue 0", "queue 1", "queue 2", "read 0", "queue 3", "read 1", "read 2", "read 3"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("", "cuda:0        NVIDIA H200, statistics by fused kernels\n"),
        ("rank", "cuda:0        NVIDIA H200, statistics by torch: on a probe they differ from torch in rank\n"),
    ],
)
def test_doctor_says_what_measures_the_logits_of_a_gpu(fake, monkeypatch, capsys, wrong, told):
    fake(FakeFused(wrong))
    monkeypatch.setattr(torch, "device", lambda *place, device=torch.device: device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    show_gpu(0)
    assert capsys.readouterr().out == told
