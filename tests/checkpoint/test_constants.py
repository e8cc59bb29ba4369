"""Constants of old releases are left out without changing results, and other tensors are not taken for constants."""

import pytest
import torch
from checkpoint import builders
from checkpoint.builders import COMMON, FAMILIES, SMALL

from lossprobe.checkpoint.families.huggingface import load_huggingface
from lossprobe.checkpoint.files.constants import Constants, is_causal_mask
from lossprobe.checkpoint.options import LoadOptions

SIDE = 64
CAUSAL = torch.ones(SIDE, SIDE).tril()[None, None]
LOCAL = (CAUSAL.bool() ^ CAUSAL.bool().tril(-16)).to(torch.uint8)
GPT_NEO = COMMON | {
    "hidden_size": 32, "intermediate_size": 48, "num_layers": 2, "num_heads": 4, "window_size": 16,
    "attention_types": [[["global", "local"], 1]], "max_position_embeddings": SIDE,
}  # fmt: skip
GPTJ = COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": SIDE, "rotary_dim": 4}
NEOX = FAMILIES["gpt_neox"]
BIGCODE = COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": SIDE}
XGLM = COMMON | {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": SIDE}


def frequencies(width: int, base: float = 10000.0) -> torch.Tensor:
    """Return rotary tables by the formula, in float64."""
    return base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)


def angles(width: int) -> torch.Tensor:
    return torch.outer(torch.arange(SIDE, dtype=torch.float64), frequencies(width))


def in_each_layer(**named):
    return {f"{{prefix}}.{name.replace('__', '.')}": tensor for name, tensor in named.items()}


OLD = {
    "gpt2": (FAMILIES["gpt2"], "transformer.h", in_each_layer(attn__bias=CAUSAL.bool(), attn__masked_bias=-1e4)),
    "gpt2 half": (
        FAMILIES["gpt2"],
        "transformer.h",
        in_each_layer(attn__bias=CAUSAL.half(), attn__masked_bias=torch.tensor(-1e4).bfloat16()),
    ),
    "gpt_neo": (GPT_NEO, "transformer.h", in_each_layer(attn__attention__bias=None, attn__attention__masked_bias=-1e9)),
    "gptj": (
        GPTJ,
        "transformer.h",
        in_each_layer(
            attn__bias=CAUSAL.to(torch.uint8),
            attn__masked_bias=-1e9,
            attn__embed_positions=torch.cat([angles(4).sin(), angles(4).cos()], 1).float(),
        ),
    ),
    "codegen": (GPTJ, "transformer.h", in_each_layer(attn__causal_mask=CAUSAL.to(torch.uint8))),
    "gpt_neox": (
        NEOX | {"rotary_pct": 0.5},
        "gpt_neox.layers",
        in_each_layer(
            attention__bias=CAUSAL.bool(),
            attention__masked_bias=-1e9,
            attention__rotary_emb__inv_freq=frequencies(4).float(),
        ),
    ),
    "llama": (
        SMALL,
        "model.layers",
        in_each_layer(
            self_attn__rotary_emb__inv_freq=frequencies(8).half(),
            self_attn__rotary_emb__cos_cached=angles(8).repeat(1, 2).cos()[None, None].float(),
        ),
    ),
    "llama linear": (
        SMALL | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "model.layers",
        in_each_layer(self_attn__rotary_emb__inv_freq=frequencies(8).float()),
    ),
    "openai-gpt": (BIGCODE, "transformer.h", in_each_layer(attn__bias=CAUSAL)),
    "gpt_bigcode": (BIGCODE, "", {"transformer.bias": CAUSAL[0, 0].bool()}),
    "opt": (
        COMMON
        | {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"max_position_embeddings": SIDE, "word_embed_proj_dim": 32},
        "",
        {"model.decoder.version": torch.tensor([3.0])},
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", OLD)
def test_constants_of_old_releases_change_nothing(tmp_path, monkeypatch, case):
    changes, prefix, named = OLD[case]
    family = case.split()[0]
    monkeypatch.setitem(builders.FAMILIES, family, changes)
    model = builders.model(family)
    path = builders.save(model, tmp_path / "m")
    layers = range(2) if prefix else (0,)
    added = {
        name.format(prefix=f"{prefix}.{layer}"): (CAUSAL.to(torch.uint8), LOCAL)[layer] if tensor is None else tensor
        for layer in layers
        for name, tensor in named.items()
    }
    added = {name: torch.as_tensor(tensor).clone() for name, tensor in added.items()}
    builders.rewrite(path, lambda tensors: tensors | added)
    checkpoint = load_huggingface(path, LoadOptions())
    ids = torch.arange(50)[None] % 300
    with torch.no_grad():
        wanted = model(input_ids=ids).logits[0]
    actual = checkpoint.logits(checkpoint.hidden(ids).flatten(0, 1))
    torch.testing.assert_close(actual, wanted, rtol=0, atol=2e-6)
    assert checkpoint.facts.stored_dtype == "float32"
    (notice,) = (line for line in checkpoint.facts.notices if "stored tensor" in line)
    assert f"{len(added)} stored tensor" in notice
    assert min(added) in notice


@pytest.mark.parametrize(
    ("family", "name", "tensor"),
    [
        ("gpt2", "transformer.h.0.attn.masked_bias", torch.tensor(0.3)),
        ("gpt2", "transformer.h.0.attn.masked_bias", torch.full((4,), -1e4)),
        ("gpt2", "transformer.h.0.attn.bias", torch.ones(1, 1, SIDE, SIDE)),
        ("gpt2", "transformer.h.0.attn.bias", CAUSAL * 0.5),
        ("gpt2", "transformer.h.0.attn.bias", CAUSAL.mT.contiguous()),
        ("gpt2", "transformer.h.0.attn.bias", LOCAL),
        ("gpt2", "transformer.h.0.attn.extra", CAUSAL),
        ("gpt2", "transformer.h.0.attn.flag", torch.tensor([True])),
        ("gpt2", "transformer.h.0.rotary_emb.inv_freq", torch.rand(4)),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", frequencies(8, 1e6).float()),
        ("llama", "model.layers.0.self_attn.rotary_emb.cos_cached", angles(8).float()),
        ("llama", "model.layers.0.self_attn.q_proj.weight_scale", torch.ones(1)),
    ],
)
def test_what_could_be_a_weight_or_another_model_is_refused(copy_of, family, name, tensor):
    path = copy_of(family)
    builders.rewrite(path, lambda tensors: tensors | {name: tensor})
    assert name in builders.refused(path, "checkpoint.unexpected_tensor")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (CAUSAL, True),
        (CAUSAL[0, 0].bool(), True),
        (1 - CAUSAL, True),
        (torch.full((5, 5), -torch.inf).triu(1), True),
        (torch.full((5, 5), -1e9).triu(1)[None], True),
        (torch.full((5, 5), -1.0).triu(1), False),
        (torch.full((5, 5), -1e9).triu(0), False),
        (torch.full((5, 5), -1e9).triu(1) + torch.eye(5), False),
        (torch.ones(2, 5, 5).tril(), False),
        (torch.ones(5, 4).tril(), False),
        (torch.tensor(1.0), False),
        (torch.full((5, 5), torch.nan), False),
        (torch.ones(1, 1), True),
        (torch.zeros(1, 1), False),
    ],
)
def test_masks(mask, expected):
    assert is_causal_mask(mask) is expected


def test_a_window_must_be_that_of_the_configuration():
    assert is_causal_mask(LOCAL, (16,))
    assert not is_causal_mask(LOCAL, (15,))


TABLE = torch.rand(2, 8)
BUFFERS = {
    "layers.0.rotary_emb.inv_freq": 3 * frequencies(8),
    "layers.0.table": TABLE,
    "layers.0.mask": torch.tensor([True, False]),
}


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("model.layers.0.table", TABLE * (1 + 1e-6), True),
        ("0.table", TABLE, True),
        ("layers.0.table", TABLE * 1.1, False),
        ("layers.0.table", TABLE.reshape(8, 2), False),
        ("layers.0.weight", TABLE, False),
        ("layers.0.mask", torch.tensor([1, 0]), True),
        ("layers.0.mask", torch.tensor([2.0, 0.0]), False),
        ("layers.0.mask", torch.tensor([0, 1]), False),
        ("layers.1.rotary_emb.inv_freq", 3 * frequencies(8), True),
        ("layers.1.rotary_emb.inv_freq", 2 * frequencies(8), False),
        ("layers.1.rotary_emb.inv_freq", frequencies(4).float(), True),
        ("layers.1.rotary_emb.inv_freq", torch.ones(1, dtype=torch.int64), False),
        ("a.cos_cached", torch.ones(8), False),
        ("a.cos_cached", torch.ones(3, 7), False),
        ("a.cos_cached", torch.ones(2, 3, 8), False),
        ("a.cos_cached", angles(8).repeat(1, 2).cos()[None], True),
        ("a.cos_cached", angles(8).repeat(1, 2).cos() * 0.9, False),
        ("a.weight", angles(8).repeat(1, 2).cos(), False),
        ("a.embed_positions", torch.cat([angles(8).sin(), angles(8).cos()], 1), True),
        ("a.version", torch.ones(()), True),
        ("a.version", torch.ones(2), False),
        ("a._float_tensor", torch.ones(2), False),
        ("a.position_ids", torch.arange(6).reshape(2, 3), False),
        ("a.position_ids", torch.tensor(0), False),
    ],
)
def test_what_is_a_constant_by_hand(name, tensor, expected):
    assert Constants(BUFFERS).holds(name, tensor) is expected


def test_position_numbers():
    constants = Constants()
    assert constants.holds("a.position_ids", torch.arange(9)[None])
    assert not constants.holds("a.position_ids", torch.arange(9).flip(0))
    assert not constants.holds("a.position_ids", torch.arange(1, 9))
    assert constants.holds("token_type_ids", torch.zeros(1, 9, dtype=torch.int64))
    assert not constants.holds("token_type_ids", torch.ones(1, 9, dtype=torch.int64))
