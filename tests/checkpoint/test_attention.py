"""Attention by compiled loops gives what float64 gives, and only where plain causal attention is asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from checkpoint import builders

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model import attention
from lossprobe.checkpoint.model.attention import KIND, LEAST, BlockedAttention, causal_attention
from lossprobe.checkpoint.model.attention_loops import KEYS, QUERIES
from lossprobe.checkpoint.options import LoadOptions

SDPA = torch.nn.functional.scaled_dot_product_attention
pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in attention.VECTORS, reason="the loops are for AVX2 and AVX-512"
)


def rows(*shape, seed=0, spread=1.0):
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(query, key, value, scale=None):
    """Return attention in float64 by its definition."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = query.double(), key.double().repeat_interleave(groups, 1), value.double().repeat_interleave(groups, 1)
    scores = q @ k.transpose(2, 3) * (query.shape[3] ** -0.5 if scale is None else scale)
    later = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("length", [1, 2, KEYS - 1, KEYS, KEYS + 1, QUERIES, QUERIES + 1, 3 * QUERIES + 17])
@pytest.mark.parametrize("shape", [(1, 1, 1, 4, 4), (2, 6, 2, 5, 12), (1, 4, 4, 64, 64), (3, 3, 1, 1, 8)])
def test_it_is_that_of_float64(shape, length):
    batch, heads, groups, width, end = shape
    query, key = rows(batch, heads, length, width, spread=2.0), rows(batch, groups, length, width, seed=1)
    value = rows(batch, groups, length, end, seed=2)
    found = causal_attention(query, key, value)
    assert found.shape == (batch, heads, length, end)
    torch.testing.assert_close(found.double(), exact(query, key, value), atol=3e-6, rtol=0)


@pytest.mark.thorough
def test_narrower_vectors_give_the_same(tmp_path):
    """Compiled for a processor with vectors of 256 bits, whose tiles are narrower."""
    code = (
        "import llvmlite.binding as binding\n"
        "features = binding.get_host_cpu_features()\n"
        "features.update({name: False for name in features if name.startswith('avx512')})\n"
        "binding.get_host_cpu_features = lambda: features\n"
        "import torch\n"
        "from lossprobe.checkpoint.model.attention import causal_attention\n"
        "from lossprobe.instructions import COLUMNS\n"
        "rows = torch.randn(3, 2, 4, 333, 64, generator=torch.Generator().manual_seed(0))\n"
        "exact = torch.nn.functional.scaled_dot_product_attention(*rows.double(), is_causal=True)\n"
        "print(COLUMNS, float((causal_attention(*rows) - exact).abs().max()))\n"
    )
    where = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True)
    columns, off = done.stdout.split()
    assert int(columns) == 16
    assert float(off) < 3e-6


@pytest.mark.parametrize("spread", [1e-3, 30.0, 1e4])
def test_scores_of_any_size(spread):
    query, key, value = rows(1, 2, 200, 8, spread=spread), rows(1, 2, 200, 8, seed=1), rows(1, 2, 200, 8, seed=2)
    expected = exact(query, key, value)
    # A float32 score of 1e4 is off by up to 1e-3, and so is its weight.
    torch.testing.assert_close(
        causal_attention(query, key, value).double(), expected, atol=3e-6 + spread * 4e-7, rtol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    query, key, value = (rows(1, 4, 190, 32, seed=seed).to(dtype) for seed in range(3))
    expected = exact(query, key, value, 0.3)
    found = causal_attention(query, key, value, 0.3)
    assert found.dtype == dtype
    unit = torch.finfo(dtype).eps
    assert ((found.double() - expected).abs() <= 0.51 * unit * expected.abs() + 3e-6).all()
    torch_s = SDPA(query, key, value, is_causal=True, scale=0.3).double()
    assert (found.double() - expected).norm() <= (torch_s - expected).norm()


def test_later_tokens_change_nothing():
    query, key, value = (rows(1, 2, 333, 16, seed=seed) for seed in range(3))
    for cut in (1, 65, 130, 300):
        short = causal_attention(query[:, :, :cut], key[:, :, :cut], value[:, :, :cut])
        assert torch.equal(causal_attention(query, key, value)[:, :, :cut], short)


def test_a_nan_reaches_the_queries_that_see_it():
    query, key, value = (rows(1, 1, 150, 8, seed=seed) for seed in range(3))
    key[0, 0, 70, 3] = torch.nan
    found = causal_attention(query, key, value)
    assert torch.isnan(found[0, 0, 70:]).all()
    assert torch.isfinite(found[0, 0, :70]).all()


def test_the_number_of_threads_changes_no_bit():
    query, key, value = (rows(2, 3, 150, 8, seed=seed) for seed in range(3))
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(causal_attention(query, key, value))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_views_of_one_tensor_as_gpt2_has_them():
    together = rows(2, 100, 3 * 24).view(2, 100, 3, 4, 6)[..., :4]
    query, key, value = (together[:, :, at].transpose(1, 2) for at in range(3))
    torch.testing.assert_close(
        causal_attention(query, key, value).double(), exact(query, key, value), atol=3e-6, rtol=0
    )


@pytest.mark.parametrize(("heads", "groups", "copied"), [(4, 4, 0), (4, 2, 0), (6, 1, 1)])
@pytest.mark.parametrize("batch", [1, 2])
def test_parts_of_one_tensor_are_read_where_they_lie(heads, groups, copied, batch):
    """As GPT-2 has them, and with shared keys; queries are copied where the tensor is no multiple of them."""
    together = rows(batch + 1, 70, (heads + 2 * groups) * 8)[1:]
    cut = [part.unflatten(2, (-1, 8)) for part in together.split([heads * 8, groups * 8, groups * 8], dim=2)]
    found = [attention._side_by_side(part) for part in cut]
    for (whole, number), part in zip(found, cut, strict=True):
        assert torch.equal(whole[:, :, number], part)
    elsewhere = [whole.data_ptr() != together.data_ptr() for whole, _ in found]
    assert elsewhere == [True] * copied + [False] * (3 - copied)
    expected = causal_attention(*(part.contiguous().transpose(1, 2) for part in cut))
    assert torch.equal(causal_attention(*(part.transpose(1, 2) for part in cut)), expected)


def test_parts_that_cannot_be_numbered_are_copied():
    memory = rows(2 * 5 * 48)
    for shape, steps, start in (
        ((2, 5, 2, 8), (240, 48, 8, 1), 0),  # one of three
        ((2, 5, 2, 8), (240, 48, 8, 1), 8),  # not at a multiple of its size
        ((2, 4, 2, 8), (240, 48, 8, 1), 0),  # fewer tokens than the tensor has
        ((2, 5, 2, 4), (240, 48, 8, 1), 0),  # parts of heads
        ((1, 5, 2, 8), (240, 48, 8, 1), 256),  # the memory ends before the tensor would
        ((2, 5, 2, 8), (0, 0, 8, 1), 16),  # the same for all tokens
    ):
        part = memory.as_strided(shape, steps, start)
        whole, number = attention._side_by_side(part)
        assert torch.equal(whole[:, :, number], part)
        assert (whole.data_ptr() == memory.data_ptr()) == (start == 0 and shape == (2, 5, 2, 8))


@pytest.mark.parametrize("options", [{}, {"scale": 0.2}, {"dropout_p": 0.0, "attn_mask": None}, {"enable_gqa": True}])
def test_plain_causal_attention_is_computed_by_the_loops(options):
    query, key, value = (rows(1, 2, LEAST, 8, seed=seed) for seed in range(3))
    with BlockedAttention() as mode:
        found = SDPA(query, key, value, is_causal=True, **options)
    assert mode.used
    assert torch.equal(found, causal_attention(query, key, value, options.get("scale")))


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({}, {"attn_mask": torch.ones((LEAST, LEAST), dtype=torch.bool)}),
        ({"key": (1, 2, LEAST + 1, 8), "value": (1, 2, LEAST + 1, 8)}, {"is_causal": True}),
        ({"value": (1, 2, LEAST, 6)}, {"is_causal": True}),
        (dict.fromkeys(("query", "key", "value"), (1, 2, LEAST - 1, 8)), {"is_causal": True}),
        (dict.fromkeys(("query", "key", "value"), (2, LEAST, 8)), {"is_causal": True}),
    ],
    ids=["not causal", "a mask", "more keys", "a width that is no multiple", "short", "no heads"],
)  # fmt: skip
def test_all_other_attention_is_that_of_torch(changes, options):
    shapes = dict.fromkeys(("query", "key", "value"), (1, 2, LEAST, 8)) | changes
    query, key, value = (rows(*shapes[name], seed=seed) for seed, name in enumerate(("query", "key", "value")))
    expected = SDPA(query, key, value, **options)
    with BlockedAttention() as mode:
        found = SDPA(query, key, value, **options)
    assert not mode.used
    assert torch.equal(found, expected)


def test_outside_of_a_pass_attention_is_that_of_torch():
    mode = BlockedAttention()
    with mode:
        pass
    query = rows(1, 1, LEAST, 8)
    SDPA(query, query, query, is_causal=True)
    assert not mode.used


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_gives_the_same_hidden_states(family_paths, monkeypatch, family):
    fast = load_huggingface(family_paths[family], LoadOptions())
    assert fast.facts.kernels.endswith(KIND)
    monkeypatch.setattr(attention, "VECTORS", ())
    plain = load_huggingface(family_paths[family], LoadOptions())
    assert KIND not in plain.facts.kernels
    ids = torch.arange(2 * 100).view(2, 100)[:, : plain.facts.context_length] * 7 % builders.VOCABULARY
    torch.testing.assert_close(fast.hidden(ids), plain.hidden(ids), atol=2e-5, rtol=0)


def test_loops_that_are_wrong_are_not_used(family_paths, monkeypatch):
    def wrong(query, key, value, scale=None):
        return 1.001 * exact(query, key, value, scale).float()

    monkeypatch.setattr(attention, "causal_attention", wrong)
    assert KIND not in load_huggingface(family_paths["llama"], LoadOptions()).facts.kernels


def test_where_torch_multiplies_tiles_half_precision_is_left_to_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not attention._is_faster("cpu", torch.bfloat16)
    assert attention._is_faster("cpu", torch.float32)
    assert not attention._is_faster("cuda", torch.float32)


def test_compiling_the_loops_starts_no_process(monkeypatch):
    """A process that compiles them for another one must not start a third."""
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(attention, "compile_apart", None)
    attention.compile_loops()
