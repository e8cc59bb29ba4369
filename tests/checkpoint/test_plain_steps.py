"""Norms and rotary positions by compiled loops have the bytes of torch's operations, or are left to torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from lossprobe.checkpoint.model.plain import step_loops, steps
from lossprobe.checkpoint.model.plain.rotary import Llama3Scaling, Rope, Rotation, rotate
from lossprobe.checkpoint.model.plain.steps import normalised, turned

ROPES = {
    "plain": Rope(10000.0),
    "llama 3": Rope(500.0, Llama3Scaling(8.0, 1.0, 4.0, 32)),
}
needs_loops = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in steps.VECTORS, reason="the loops are for AVX2 and AVX-512"
)


def rows(*shape, seed=0, spread=1.0):
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def probed():
    """Let the probes run anew in a test, and after it."""
    yield
    for probe in (steps._norm_is_exact, steps._turn_is_exact):
        probe.cache_clear()


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@needs_loops
def test_the_loops_are_exact_for_the_widths_of_models():
    widths = (32, 64, 96, 128, 288, 512, 576, 768, 896, 1024, 1376, 2048, 2560, 3584, 4096, 5120, 8192)
    assert [width for width in widths if not steps._norm_is_exact(width)] == []
    assert steps._turn_is_exact()


def norm_in_float64(x, weight, epsilon):
    wide = x.double()
    return weight.double() * wide / (wide.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()


@pytest.mark.parametrize("shape", [(1, 1, 32), (3, 17, 96), (2, 700, 512), (1, 1, 4096), (2, 30, 4, 64), (1, 40, 20)])
@pytest.mark.parametrize("spread", [1e-25, 1e-3, 1.0, 1e15])
@torch.inference_mode()
def test_norms_have_the_bytes_of_torch(shape, spread, threads):
    x, weight = rows(*shape, spread=spread), rows(shape[-1], seed=1)
    for epsilon in (1e-6, 0.01):
        found = normalised(x, weight, epsilon)
        assert torch.equal(found, steps._normalised_by_torch(x, weight, epsilon))
        torch.testing.assert_close(found.double(), norm_in_float64(x, weight, epsilon), rtol=1e-6, atol=0)


@torch.inference_mode()
def test_what_is_not_finite_stays_so():
    x = rows(4, 64)
    x[1, 5], x[2, 7], x[3] = torch.nan, torch.inf, 0.0
    found = normalised(x, torch.ones(64), 1e-6)
    assert torch.isnan(found[1]).all()
    assert torch.isnan(found[2, 7])
    assert torch.equal(found[2, :7], torch.zeros(7))
    assert torch.equal(found[3], torch.zeros(64))
    torch.testing.assert_close(found[:1], steps._normalised_by_torch(x[:1], torch.ones(64), 1e-6), rtol=0, atol=0)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize(("batch", "length", "heads", "width"), [(1, 1, 1, 2), (3, 17, 5, 6), (2, 300, 4, 64)])
@torch.inference_mode()
def test_turns_have_the_bytes_of_torch(rope, batch, length, heads, width, threads):
    x = rows(batch, length, heads, width)
    after_padding = (torch.arange(length) - torch.arange(batch)[:, None]).clamp(min=0)
    for positions in (torch.arange(length)[None] + 7, after_padding):
        cos, sin = Rotation(ROPES[rope], width)(positions, torch.float32)
        expected = rotate(x.transpose(1, 2), cos, sin)
        assert torch.equal(turned(x.clone(), cos, sin), expected)


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.bfloat16, lambda x: x.transpose(0, 1)])
def test_all_else_is_left_to_torch(monkeypatch, change):
    monkeypatch.setattr(steps, "step_loops", None)
    x, weight = change(rows(3, 5, 4, 32)), change(rows(1, 1, 32)).flatten()
    angles = rows(1, 1, x.shape[1], 16).repeat(1, 1, 1, 2)
    turns = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    with torch.inference_mode():
        assert torch.equal(normalised(x, weight, 1e-6), steps._normalised_by_torch(x, weight, 1e-6))
        assert torch.equal(turned(x, *turns), rotate(x.transpose(1, 2), *turns))


def test_gradients_are_those_of_torch():
    x, weight = rows(2, 3, 32).requires_grad_(), rows(32, seed=1).requires_grad_()
    found = torch.autograd.grad(normalised(x, weight, 1e-6).sum(), (x, weight))
    for each, expected in zip(
        found, torch.autograd.grad(norm_in_float64(x, weight, 1e-6).sum(), (x, weight)), strict=True
    ):
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


@needs_loops
@torch.inference_mode()
def test_loops_that_round_otherwise_are_not_used(monkeypatch, probed):
    def wrong(x, *_):
        x[...] = 1e-3  # what is in new memory may be anything

    monkeypatch.setattr(step_loops, "normalise", lambda *arguments: wrong(arguments[-1]))
    monkeypatch.setattr(step_loops, "turn", wrong)
    x, weight, turns = (
        rows(1, 9, 2, 160),
        rows(160),
        Rotation(ROPES["plain"], 160)(torch.arange(9)[None], torch.float32),
    )
    for probe in (steps._norm_is_exact, steps._turn_is_exact):
        probe.cache_clear()
    assert torch.equal(normalised(x, weight, 1e-6), steps._normalised_by_torch(x, weight, 1e-6))
    assert torch.equal(turned(x, *turns), rotate(x.transpose(1, 2), *turns))


@pytest.mark.thorough
@pytest.mark.parametrize("narrow", ["loops", "torch", "both"])
def test_narrower_vectors_give_the_same(tmp_path, narrow):
    """Compiled for a processor with vectors of 256 bits, or with torch's code for one."""
    code = (
        "import llvmlite.binding as binding\n"
        "features = binding.get_host_cpu_features()\n"
        "features.update({name: False for name in features if name.startswith('avx512')})\n"
        "binding.get_host_cpu_features = lambda: features\n"
    )
    asked = (
        "from lossprobe.checkpoint.model.plain import steps\n"
        "print(steps._turn_is_exact(), *(steps._norm_is_exact(width) for width in (32, 576, 2048)))\n"
    )
    where = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    if narrow != "loops":
        where["ATEN_CPU_CAPABILITY"] = "avx2"
    command = [sys.executable, "-c", asked if narrow == "torch" else code + asked]
    done = subprocess.run(command, env=where, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4


def test_compiling_the_loops_starts_no_process(monkeypatch):
    """A process that compiles them for another one must not start a third."""
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(steps, "compile_apart", None)
    steps.compile_loops()
