"""Packed layers give the same numbers up to float32 rounding, or the original layers stay."""

from __future__ import annotations

import gc
import pkgutil
import weakref

import pytest
import torch
from checkpoint import builders, half_precision
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model import causal_lm, packed
from lossprobe.checkpoint.model.packed import PackedLinear, pack, speed_up
from lossprobe.checkpoint.model.widened import needs_widening
from lossprobe.checkpoint.options import LoadOptions

CANNOT_PACK_BFLOAT16 = pytest.mark.skipif(
    needs_widening(torch.bfloat16, "cpu"), reason="this processor cannot multiply bfloat16; see test_widened.py"
)
ACTIVATIONS = [pkgutil.resolve_name(name) for name in packed.POST_OPERATIONS]
BFLOAT16 = pytest.param(torch.bfloat16, marks=CANNOT_PACK_BFLOAT16)
IDS = torch.arange(48).view(2, 24) % builders.VOCABULARY


def layers_of(model, kind):
    return [layer for layer in model.modules() if type(layer) is kind]


def conv(out_features, in_features):
    layer = Conv1D(out_features, in_features)
    torch.nn.init.normal_(layer.bias)
    return layer


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
@pytest.mark.parametrize(
    "layer", [torch.nn.Linear(48, 130), torch.nn.Linear(48, 7, bias=False), conv(33, 48)], ids=["bias", "plain", "conv"]
)
def test_a_packed_layer_gives_what_float64_gives(layer, rows):
    x = torch.randn((rows, 48), generator=torch.Generator().manual_seed(rows))
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    expected = x.double() @ weight.T.double() + (0.0 if layer.bias is None else layer.bias.double())
    with torch.inference_mode():
        faster = pack(layer)
        assert isinstance(faster, PackedLinear)
        torch.testing.assert_close(faster(x).double(), expected, atol=1e-5, rtol=0)
        assert faster(x[None]).shape == (1, rows, len(weight))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_an_activation_is_part_of_the_layer_before_it(activation):
    x = torch.randn((50, 24), generator=torch.Generator().manual_seed(3)) * 4
    layer = torch.nn.Linear(24, 60)
    with torch.inference_mode():
        faster = pack(layer, activation=activation())
        assert isinstance(faster, PackedLinear)
        expected = activation()(x.double() @ layer.weight.T.double() + layer.bias.double())
        torch.testing.assert_close(faster(x).double(), expected, atol=1e-5, rtol=0)


def test_an_activation_that_does_not_follow_its_layer_at_once_costs_nothing_but_speed():
    """A model that uses the names differently: each packed layer alone is right, all together are not."""

    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.activation_fn = torch.nn.Linear(8, 8), torch.nn.ReLU()

        def get_output_embeddings(self):
            return None

        def forward(self, x):
            return self.activation_fn(self.fc1(x) - 1.0)

    model, x = Other(), torch.randn((5, 8), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = model(x)
        replaced = speed_up(model)
        assert not torch.allclose(model(x), expected)
        for each in replaced:
            each.restore()
        assert torch.equal(model(x), expected)


@CANNOT_PACK_BFLOAT16
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS], ids=str)
@pytest.mark.parametrize("rows", [3, 64])
def test_bfloat16_is_rounded_once(activation, rows):
    """The sum and the activation are float32, rounded at the end: half a unit of the last place of 8 bits."""
    x = (torch.randn((rows, 40), generator=torch.Generator().manual_seed(5)) * 2).bfloat16()
    layer, after = conv(90, 40).bfloat16(), activation and activation()
    with torch.inference_mode():
        faster = pack(layer, activation=after)
        assert isinstance(faster, PackedLinear)
        expected = x.double() @ layer.weight.double() + layer.bias.double()
        expected = expected if after is None else after(expected)
        assert faster(x).dtype == torch.bfloat16
        torch.testing.assert_close(faster(x).double(), expected, atol=1e-5, rtol=2**-8)


def test_float64_is_left_alone():
    assert pack(torch.nn.Linear(8, 8).double()) is None


def test_a_half_precision_kernel_that_rounds_twice_is_not_used(monkeypatch):
    forward = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: forward(self, x) * (1 + 2**-6))
    assert pack(torch.nn.Linear(8, 8).bfloat16()) is None


def test_a_layer_with_more_outputs_than_are_compared_at_once_is_compared_whole(monkeypatch):
    monkeypatch.setattr(packed, "COMPARED", 7)
    assert pack(conv(33, 48)) is not None
    forward = PackedLinear.forward

    def wrong_at_the_end(self, x):
        output = forward(self, x).clone()
        output[..., -1] += 1.0
        return output

    monkeypatch.setattr(PackedLinear, "forward", wrong_at_the_end)
    assert pack(conv(33, 48)) is None


def test_a_build_of_torch_that_cannot_pack_changes_nothing(monkeypatch):
    def missing(*_):
        raise AttributeError("no such operation")

    monkeypatch.setattr(PackedLinear, "__init__", missing)
    assert pack(torch.nn.Linear(8, 8)) is None


def test_a_kernel_that_is_off_by_more_than_rounding_is_not_used(monkeypatch):
    forward = PackedLinear.forward
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: forward(self, x) * 1.0001)
    assert pack(torch.nn.Linear(8, 8)) is None


def test_every_layer_but_the_head_is_replaced_and_can_be_put_back():
    model = builders.model("gpt2").eval()
    convolutions, activations = layers_of(model, Conv1D), layers_of(model, NewGELUActivation)
    assert activations
    with torch.inference_mode():
        expected = model(IDS).logits
        replaced = speed_up(model)
        assert len(replaced) == len(convolutions) + len(activations) > 4
        assert len(layers_of(model, PackedLinear)) == len(convolutions)
        assert layers_of(model, torch.nn.Linear) == [model.lm_head]
        assert not layers_of(model, NewGELUActivation)
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-5, rtol=0)
        for each in replaced:
            each.restore()
        assert layers_of(model, Conv1D) == convolutions
        assert layers_of(model, NewGELUActivation) == activations
        assert torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_weights_are_in_memory_once_and_come_back_as_they_were(family, dtype):
    model = builders.model(family).to(dtype).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    layers = [weakref.ref(layer.weight) for layer in layers_of(model, Conv1D) + layers_of(model, torch.nn.Linear)]
    alone = [weight for weight in layers if weight() is not model.get_output_embeddings().weight]
    with torch.inference_mode():
        replaced = speed_up(model)
    assert len(alone) > 4
    assert [weight() for weight in alone] == [None] * len(alone)
    assert {each.bytes_twice for each in replaced} == {0}
    for each in replaced:
        each.restore()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()


def test_a_layer_that_two_modules_hold_keeps_its_weights():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            shared = torch.nn.Linear(8, 8)
            self.one = torch.nn.Sequential(shared, torch.nn.Linear(8, 8))
            self.other = torch.nn.Sequential(shared)

        def get_output_embeddings(self):
            return None

        def forward(self, x):
            return self.other(self.one(x))

    model, x = Twice(), torch.randn((5, 8), generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        expected = model(x)
        assert [each.name for each in speed_up(model)] == ["1"]
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=0)


def test_weights_that_others_use_are_packed_up_to_a_limit(monkeypatch):
    model = builders.model("gpt2")
    shared = list(model.parameters())
    first = model.transformer.h[0].attn.c_attn.weight.nbytes
    monkeypatch.setattr(packed, "MOST_TWICE", first - 1)
    replaced = speed_up(model)
    assert replaced[0].bytes_twice == first
    assert {each.parent for each in replaced} == {model.transformer.h[0].attn}
    assert all(weight.numel() for weight in shared), "the other model is as it was"


def test_a_model_in_a_dtype_that_cannot_be_packed_stays_as_it_is():
    assert speed_up(builders.model("gpt2").double()) == []


@CANNOT_PACK_BFLOAT16
def test_losses_in_bfloat16_are_as_near_to_the_exact_ones_as_before(family_paths):
    checkpoint = load_huggingface(family_paths["gpt2"], LoadOptions(dtype="bfloat16"))
    assert builders.without_attention(checkpoint.facts.kernels) == "packed body and head"
    ours, theirs = half_precision.errors(checkpoint, family_paths["gpt2"], torch.bfloat16)
    assert 0 < ours <= 1.1 * theirs


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=CANNOT_PACK_BFLOAT16)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_run_records_what_was_replaced(family_paths, family, dtype):
    checkpoint = load_huggingface(family_paths[family], LoadOptions(dtype=dtype))
    assert builders.without_attention(checkpoint.facts.kernels) == "packed body and head"


def test_nothing_else_holds_the_weights_of_a_checkpoint(family_paths, monkeypatch):
    replaced = []

    def recording(model):
        replaced.extend(speed_up(model))
        return replaced

    monkeypatch.setattr(causal_lm, "speed_up", recording)
    checkpoint = load_huggingface(family_paths["llama"], LoadOptions())
    assert builders.without_attention(checkpoint.facts.kernels) == "packed body and head"
    assert len(replaced) > 4
    assert {each.bytes_twice for each in replaced} == {0}


def test_a_head_of_its_own_is_held_once(family_paths, monkeypatch):
    heads = []

    def recording(model, layer, *, tied):
        heads.append(weakref.ref(layer))
        return packed.pack_head(model, layer, tied=tied)

    monkeypatch.setattr(causal_lm, "pack_head", recording)
    checkpoint = load_huggingface(family_paths["llama"], LoadOptions())
    gc.collect()
    assert builders.without_attention(checkpoint.facts.kernels) == "packed body and head"
    assert [layer() for layer in heads] == [None]


def test_a_large_tied_head_is_not_kept_twice(family_paths, monkeypatch):
    monkeypatch.setattr(packed, "MOST_HEAD_BYTES", 10)
    kernels = load_huggingface(family_paths["gpt2"], LoadOptions()).facts.kernels
    assert builders.without_attention(kernels) == "packed body"


def test_a_body_that_looks_into_a_layer_keeps_its_own(family_paths, monkeypatch):
    """A model whose code reads a weight fails with a packed layer; the probe finds that and the layer is put back."""
    import transformers

    forward = transformers.GPTNeoXModel.forward

    def reading(self, *arguments, **keywords):
        assert self.layers[0].mlp.dense_h_to_4h.weight.shape[0] > 0
        return forward(self, *arguments, **keywords)

    expected = load_huggingface(family_paths["gpt_neox"], LoadOptions()).hidden(IDS)
    monkeypatch.setattr(transformers.GPTNeoXModel, "forward", reading)
    checkpoint = load_huggingface(family_paths["gpt_neox"], LoadOptions())
    assert builders.without_attention(checkpoint.facts.kernels) == "packed head"
    torch.testing.assert_close(checkpoint.hidden(IDS), expected, atol=1e-5, rtol=0)
