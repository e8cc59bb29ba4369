"""Products in float32 for processors that have none in half precision; forced here on the others."""

from __future__ import annotations

import pytest
import torch
import transformers
from adapter_files import make_adapter, peft_logits
from checkpoint import builders, half_precision
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model import causal_lm, widened
from lossprobe.checkpoint.model.streamed import by_rows
from lossprobe.checkpoint.model.widened import needs_widening, widen, widen_body
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.score import score_into
from lossprobe.passes.selfcheck import run_selfcheck
from lossprobe.text.documents import StringSource

IDS = half_precision.IDS
HALF = {"bfloat16": (torch.bfloat16, 2**-8), "float16": (torch.float16, 2**-11)}  # and half a unit of the last place


@pytest.fixture
def forced(monkeypatch):
    """Let this processor be one without products in half precision."""
    monkeypatch.setattr(causal_lm, "needs_widening", lambda dtype, _: dtype != torch.float32)
    monkeypatch.setattr(by_rows, "needs_widening", lambda dtype, _: dtype != torch.float32)


@pytest.mark.parametrize("tile", [1, 700, 8 << 20])  # bytes: one output at a time, four, all
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    "layer", [torch.nn.Linear(40, 90), torch.nn.Linear(40, 7, bias=False), Conv1D(33, 40)], ids=["bias", "none", "conv"]
)
def test_an_output_is_the_float64_one_rounded_once(monkeypatch, layer, dtype, tile):
    monkeypatch.setattr(widened, "TILE_BYTES", tile)
    half, unit = HALF[dtype]
    layer = layer.to(half)
    x = (torch.randn((2, 3, 40), generator=torch.Generator().manual_seed(5)) * 2).to(half)
    weight = layer.weight if isinstance(layer, Conv1D) else layer.weight.T
    expected = x.double() @ weight.double() + (0.0 if layer.bias is None else layer.bias.double())
    with torch.inference_mode():
        change = widen(layer)
        found = layer(x)
    assert found.dtype == half
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=unit)
    change.restore()
    assert type(layer) in (torch.nn.Linear, Conv1D)


def test_sums_are_not_rounded_on_the_way():
    layer = torch.nn.Linear(3, 1, bias=False).bfloat16()
    layer.weight.data[:] = torch.tensor([[256.0, 1.0, 1.0]])
    with torch.inference_mode():
        widen(layer)
        assert layer(torch.ones(1, 3).bfloat16()).item() == 258.0


def test_every_layer_but_the_head_is_widened_and_can_be_put_back():
    model = builders.model("gpt2").bfloat16().eval()
    weights = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    with torch.inference_mode():
        before = model(IDS).logits
        changes = widen_body(model)
        kinds = {type(layer) for layer in model.modules()}
        assert widened.WidenedConv1D in kinds
        assert not {Conv1D, widened.WidenedLinear} & kinds
        assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == weights
        for each in changes:
            each.restore()
        assert torch.equal(model(IDS).logits, before)


def test_only_plain_layers_in_half_precision_are_widened():
    class Other(torch.nn.Linear):
        pass

    assert widen(torch.nn.Linear(4, 4)) is None
    assert widen(Other(4, 4).bfloat16()) is None
    assert widen(torch.nn.Embedding(4, 4).bfloat16()) is None
    assert widen(None) is None


def test_where_it_is_needed(monkeypatch):
    assert not needs_widening(torch.float32, "cpu")
    assert not needs_widening(torch.bfloat16, "cuda:0")
    assert needs_widening(torch.bfloat16, "cpu") != torch.ops.mkldnn._is_mkldnn_bf16_supported()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert not needs_widening(torch.bfloat16, "cpu")


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])  # tied, untied, soft-capped
def test_losses_are_as_near_to_the_exact_ones_as_those_of_transformers(family_paths, forced, family, dtype):
    checkpoint = load_huggingface(family_paths[family], LoadOptions(dtype=dtype))
    assert builders.without_attention(checkpoint.facts.kernels) == "widened body and head"
    ours, theirs = half_precision.errors(checkpoint, family_paths[family], HALF[dtype][0])
    assert 0 < ours <= 1.2 * theirs


@pytest.mark.parametrize("most_head_bytes", [0, 1 << 29])
def test_streamed_layers_are_widened_too(family_paths, forced, monkeypatch, most_head_bytes):
    monkeypatch.setattr("lossprobe.checkpoint.model.streamed.streamed_weights.MOST_HEAD_BYTES", most_head_bytes)
    whole, streamed = (
        load_huggingface(family_paths["llama"], LoadOptions(dtype="bfloat16", stream_weights=how))
        for how in ("never", "always")
    )
    assert streamed.facts.kernels.startswith("widened body")
    hidden = whole.hidden(IDS)
    assert torch.equal(streamed.hidden(IDS), hidden)
    rows = hidden.flatten(0, 1)
    assert torch.equal(streamed.logits(rows), whole.logits(rows))


@pytest.mark.parametrize("dtype", HALF)
def test_a_mixture_of_experts_is_as_near_to_the_exact_one(forced, tmp_path, dtype):
    """Its experts are stacked matrices, which are run as they are; attention and routers are widened."""
    path = builders.save(builders.model("mixtral", **builders.SMALL, num_local_experts=4), tmp_path / "mixtral")
    builders.write_settings(path)
    checkpoint = load_huggingface(path, LoadOptions(dtype=dtype))
    assert checkpoint.facts.kernels.startswith("widened body")
    ours, theirs = half_precision.errors(checkpoint, path, HALF[dtype][0])
    assert 0 < ours <= 1.2 * theirs


@pytest.mark.parametrize("dtype", HALF)
def test_losses_of_gpt2_are_those_of_float64_but_for_rounding(family_paths, forced, tmp_path, dtype):
    """Losses as they are stored, of the weights as they are stored."""
    half, unit = HALF[dtype]
    checkpoint = load_huggingface(family_paths["gpt2"], LoadOptions(dtype=dtype))
    source = StringSource(["the cat sat on the mat. the cat ate the rat. " * 2])
    run = score_into(tmp_path / "run", checkpoint, source).run
    found = run.query("SELECT token_id, loss_nats FROM tokens ORDER BY document, token")
    ids = torch.tensor(found["token_id"].to_numpy()[None], dtype=torch.int64)
    plain = transformers.AutoModelForCausalLM.from_pretrained(family_paths["gpt2"], dtype=half).double()
    with torch.inference_mode():
        logits = plain(ids).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    losses = torch.tensor(found["loss_nats"].to_numpy()[1:], dtype=torch.float64)
    assert len(expected) > 10
    # A logit is a sum over two layers whose values are of the size of the logits, each rounded by half a unit.
    assert (losses - expected).abs().max() <= 4 * unit * logits.abs().max()
    assert (losses - expected).abs().max() > 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_beside_widened_layers_is_as_near_to_the_exact_one(family_paths, forced, tmp_path, dtype, merge):
    half, _ = HALF[dtype]
    base = builders.model("llama")
    folder = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "v_proj", "down_proj"])
    checkpoint = open_checkpoint(folder, LoadOptions(base=family_paths["llama"], dtype=dtype, merge=merge))
    assert checkpoint.facts.kernels.startswith("widened body")
    exact = peft_logits(base, folder, IDS).flatten(0, 1)
    plain = peft_logits(base, folder, IDS, half).flatten(0, 1).double()
    with torch.inference_mode():
        ours = checkpoint.logits(checkpoint.hidden(IDS).flatten(0, 1)).double()
    assert 0 < (ours - exact).square().mean() <= 1.2 * (plain - exact).square().mean()


@pytest.mark.parametrize("dtype", HALF)
def test_the_self_check_holds_with_widened_layers(family_paths, forced, tmp_path, monkeypatch, dtype):
    monkeypatch.chdir(tmp_path)
    checkpoint = load_huggingface(family_paths["llama"], LoadOptions(dtype=dtype))
    source = StringSource(
        ["the cat sat on the mat. " * 4, "the rat", "Once upon a time, there was a little girl. " * 2]
    )
    _, result = run_selfcheck(checkpoint, source, tokens=512)
    assert result.broken == []
    must = result.table[result.table["kind"] == "must not matter"]
    assert (must["verdict"] == "same").sum() >= 6
