"""Stored tensors are checked by their stored names and dtypes; parts of names that wrappers add are removed."""

from types import SimpleNamespace

import pytest
import torch
from checkpoint import builders
from checkpoint.builders import SMALL

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.model.unused_tensors import UnusedTensors
from lossprobe.checkpoint.options import LoadOptions

MIXTRAL = SMALL | {"num_local_experts": 4}
EXPERT = "block_sparse_moe.experts.3.w2.weight"
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.fixture
def mixtral(tmp_path, monkeypatch):
    monkeypatch.setitem(builders.FAMILIES, "mixtral", MIXTRAL)
    return builders.save(builders.model("mixtral"), tmp_path / "mixtral")


def only(part, change):
    """Return what changes the tensors whose names have a part in them."""
    return lambda tensors: {name: change(tensor) if part in name else tensor for name, tensor in tensors.items()}


def without_prefix(tensors):
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.int8, torch.uint8, torch.int32])
def test_narrow_numbers_are_refused_where_names_are_rewritten(mixtral, dtype):
    builders.rewrite(mixtral, only("experts", lambda tensor: (tensor * 50).to(dtype)))
    message = builders.refused(mixtral, "checkpoint.quantized")
    assert "tensor model.layers.0.block_sparse_moe.experts.0.w1.weight is stored as " in message
    assert "(24 of 41 tensors are)" in message


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.int8])
def test_narrow_numbers_are_refused_without_the_name_of_the_body(copy_of, dtype):
    path = copy_of("gpt2")
    builders.rewrite(path, lambda tensors: only("c_fc.weight", lambda each: each.to(dtype))(without_prefix(tensors)))
    assert "tensor h.0.mlp.c_fc.weight is stored as" in builders.refused(path, "checkpoint.quantized")


def test_packed_weights_are_named_as_such(copy_of):
    path = copy_of("llama")

    def packed(tensors):
        plain = {name: tensor for name, tensor in tensors.items() if "mlp" not in name}
        for name in tensors.keys() - plain.keys():
            stem = name.removesuffix("weight")
            plain[f"{stem}qweight"] = torch.ones(4, 32, dtype=torch.int32)
            plain[f"{stem}scales"] = torch.ones(1, 32)
        return plain

    builders.rewrite(path, packed)
    assert "mlp.down_proj.qweight is stored as I32" in builders.refused(path, "checkpoint.quantized")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_value_of_one_expert_that_is_not_finite(mixtral, value):
    def spoil(tensor):
        tensor = tensor.clone()
        tensor[1, 2] = value
        return tensor

    builders.rewrite(mixtral, only(f"layers.1.{EXPERT}", spoil))
    assert f"model.layers.1.{EXPERT}: 1 non-finite value" in builders.refused(mixtral, "checkpoint.non_finite")


def test_a_weight_too_large_for_the_dtype_of_the_pass(copy_of):
    path = copy_of("gpt2")
    builders.rewrite(path, only("ln_f.bias", lambda tensor: tensor + 1e5))
    assert load_huggingface(path, LoadOptions()).facts.notices == ()
    assert "ln_f.bias: 32 non-finite" in builders.refused(path, "checkpoint.non_finite", LoadOptions(dtype="float16"))


def renamed(rename):
    """Return a change that gives every tensor another name."""
    return lambda tensors: {rename(name): tensor for name, tensor in tensors.items()}


def inside(name):
    """As FSDP, activation checkpoints and regional compilation leave names: outside, and around each layer."""
    name = name.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
    return "_fsdp_wrapped_module." + name.replace("layers.1.", "layers.1._orig_mod.")


WRAPPED = {
    "_orig_mod.": ("llama", "_orig_mod.{}".format),
    "module.": ("qwen3", "module.{}".format),
    "_orig_mod., module.": ("gpt2", "_orig_mod.module.{}".format),
    "module., _orig_mod.": ("mixtral", "module._orig_mod.{}".format),
    "_fsdp_wrapped_module.": ("llama", inside),
    "._orig_mod.": ("llama", lambda name: name.replace("layers.0.", "layers.0._orig_mod.")),
    "model.": ("llama", "model.{}".format),
    "module., model.": ("gpt2", "module.model.{}".format),
    "base_model.model.": ("mixtral", "base_model.model.{}".format),
    "._orig_mod., model.": ("llama", "model._orig_mod.{}".format),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_change_nothing_but_names(tmp_path, monkeypatch, case):
    monkeypatch.setitem(builders.FAMILIES, "mixtral", MIXTRAL)
    family, rename = WRAPPED[case]
    model = builders.model(family)
    path = builders.save(model, tmp_path / "m")
    builders.rewrite(path, renamed(rename))
    checkpoint = load_huggingface(path, LoadOptions())
    ids = torch.arange(50)[None] % 300
    with torch.no_grad():
        wanted = model(input_ids=ids).logits[0]
    torch.testing.assert_close(checkpoint.logits(checkpoint.hidden(ids).flatten(0, 1)), wanted, rtol=0, atol=2e-6)
    (notice,) = (line for line in checkpoint.facts.notices if "tensor names" in line)
    assert notice.startswith("tensor names are read without ")
    assert case.split(", ")[0] in notice
    assert case.split(", ")[-1] in notice


@pytest.mark.parametrize("start", ["_orig_mod.", "module."])
def test_two_models_in_one_file(copy_of, start):
    path = copy_of("llama")
    builders.rewrite(path, lambda tensors: tensors | {start + name: each.clone() for name, each in tensors.items()})
    message = builders.refused(path, "checkpoint.mixed_names")
    assert f"21 of 42 tensor names start with {start}: two models in one file?" in message


def test_two_tensors_that_become_one(copy_of):
    path = copy_of("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    other = name.replace("layers.0.", "layers.0._orig_mod.")
    builders.rewrite(path, lambda tensors: tensors | {other: tensors[name].clone()})
    assert "have the same name without ._orig_mod." in builders.refused(path, "checkpoint.mixed_names")


def test_a_start_that_nobody_knows_is_named(copy_of):
    path = copy_of("llama")
    builders.rewrite(path, renamed("student.{}".format))
    message = builders.refused(path, "checkpoint.missing_tensor")
    assert "(0 of 21 present; all names start with student.)" in message


class Tables(torch.nn.Module):
    """A model with a weight, a bound that may be infinite, and tables that are no weights."""

    base_model_prefix = "model"
    _keys_to_ignore_on_load_unexpected = (r"^vision\.",)
    config = SimpleNamespace(to_dict=dict)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))
        self.register_buffer("bound", torch.tensor([torch.inf]))
        self.register_buffer("table", torch.arange(6))
        self.register_buffer("position_ids", torch.arange(1, 4))


INFINITE = torch.tensor([torch.inf])


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("bound", INFINITE, True),
        ("model.bound", INFINITE, True),
        ("bound", torch.tensor([torch.nan]), False),
        ("weight", INFINITE, False),
        ("model.weight", INFINITE, False),
        ("unknown", INFINITE, False),
    ],
)
def test_only_what_is_no_weight_may_be_infinite(name, tensor, expected):
    assert bool(UnusedTensors(Tables(), {}, set()).is_bound(name, tensor)) is expected


@pytest.mark.parametrize(
    ("name", "kind", "tensor", "expected"),
    [
        ("weight", "I8", torch.ones(2, 2, dtype=torch.int8), True),
        ("model.weight", "I8", torch.ones(2, 2, dtype=torch.int8), True),
        ("table", "I64", torch.arange(6), False),
        ("elsewhere.table", "I64", torch.arange(6), False),
        ("elsewhere.table", "I64", torch.arange(6) + 1, True),
        ("elsewhere.flag", "BOOL", torch.tensor([True]), False),
        ("h.0.attn.bias", "U8", torch.ones(3, dtype=torch.uint8), False),
        ("vision.qweight", "I32", torch.ones(3, dtype=torch.int32), False),
    ],
)
def test_integers_that_stand_for_weights(name, kind, tensor, expected):
    assert UnusedTensors(Tables(), {name: tensor}, set()).is_packed(name, kind, tensor) is expected


def test_a_bias_of_zeros_that_the_model_does_not_have(copy_of):
    path = copy_of("llama")
    name = "model.layers.0.mlp.up_proj.bias"
    builders.rewrite(path, lambda tensors: tensors | {name: torch.zeros(48)})
    (notice,) = load_huggingface(path, LoadOptions()).facts.notices
    assert notice == f"1 stored tensor not used (no weight but a constant): {name}"
    builders.rewrite(path, lambda tensors: tensors | {name: torch.eye(48)[0]})
    assert f"unexpected tensor {name}" in builders.refused(path, "checkpoint.unexpected_tensor")


def test_what_no_part_of_the_model_took_over():
    frequencies = 10000.0 ** -(torch.arange(4) / 4)
    tensors = {
        "vision.a": torch.ones(2),
        "a.rotary_emb.inv_freq": frequencies,
        "b.rotary_emb.inv_freq": frequencies * 2,
        "position_ids": torch.arange(3),  # the model has one: what it took over is not unused
        "table": torch.arange(6),
        "c.extra": torch.ones(2),
    }
    unused = UnusedTensors(Tables(), tensors, {"c.extra"})
    assert (unused.constant, unused.wrong, unused.left, unused.unexpected) == (
        {"a.rotary_emb.inv_freq"},
        ["b.rotary_emb.inv_freq"],
        {"vision.a"},
        ["c.extra"],
    )
    assert unused.notices() == (
        "1 stored tensor not used (no weight but a constant): a.rotary_emb.inv_freq",
        "1 stored tensor not used (left out by the family's model): vision.a",
    )
