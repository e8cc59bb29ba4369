"""Weights of GGUF files in transformers: logits of llama.cpp for each architecture, and what is not mapped refused."""

import importlib.util

import numpy as np
import pytest
import torch
from gguf_files import FEED, HEAD, WIDTH, random_gguf

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.gguf.opened import Opened, read_parts
from lossprobe.checkpoint.gguf.weights import load_dequantized
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.errors import CheckpointError

with_llama = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs lossprobe[gguf]")
FREQUENCIES = {"rope_freqs.weight": np.linspace(1, 8, HEAD // 2, dtype=np.float32)}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
CASES = {
    "llama": ("llama", {}),
    "llama, its own head": ("llama", {"tied": False}),
    "llama, Q8_0": ("llama", {"kind": "Q8_0"}),
    "llama with biases": ("llama", {"biased": ("attn_q", "attn_k", "attn_v", "attn_output")}),
    "llama 3.1's frequencies": ("llama", {"extra": FREQUENCIES}),
    "llama, linear": ("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "llama, yarn": ("llama", YARN),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, yarn": ("qwen3", YARN),
    "gemma2": ("gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("gemma3", {"rope.freq_base": 50000.0}),
    "gemma3, linear": ("gemma3", {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
    "gpt2": ("gpt2", {}),
    "phi3": ("phi3", {}),
}
ALWAYS = ("llama", "llama with biases", "gemma2", "gpt2")  # the others take a second each
MARKED = [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.thorough) for case in CASES]


def both(path, name, **more):
    """Return logits [40, V] of llama.cpp and of transformers."""
    path.write_bytes(random_gguf(name, **more))
    ids = torch.tensor([[(13 * i * i + 7 * i + 1) % 271 for i in range(40)]])
    found = []
    for dequantize in (False, True):
        checkpoint = open_checkpoint(path, LoadOptions(dequantize=dequantize))
        found.append(checkpoint.logits(checkpoint.hidden(ids)[0]).float())
    return found


@with_llama
@pytest.mark.parametrize(
    "case", [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.thorough) for case in CASES]
)
def test_logits_are_those_of_llama_cpp(tmp_path, case):
    name, more = CASES[case]
    theirs, ours = both(tmp_path / "x.gguf", name, **more)
    # llama.cpp keeps keys and values in float16, and for Q8_0 rounds activations to int8.
    assert float((theirs - ours).abs().mean()) < (0.15 if "Q8_0" in case else 0.006), case


@pytest.mark.thorough
@with_llama
def test_each_variant_is_another_function(tmp_path):
    """So the test above would see one that is passed over: it changes logits by far more than the two differ."""
    plain = both(tmp_path / "x.gguf", "llama")[1]
    for case in ("llama with biases", "llama 3.1's frequencies", "llama, linear", "llama, yarn"):
        assert float((both(tmp_path / "x.gguf", *CASES[case][:1], **CASES[case][1])[1] - plain).abs().mean()) > 0.05


BASE = "blk.0.attn_norm.weight"
REFUSED = {
    "a key of another kind": ("llama", {"expert_count": 8}, "gguf.not_mapped", "llama.expert_count"),
    "old scaling": ("llama", {"rope.scale_linear": 2.0}, "gguf.not_mapped", "rope.scale_linear"),
    "longrope": ("llama", {"rope.scaling.type": "longrope"}, "gguf.not_mapped", "longrope"),
    "yarn without its length": ("llama", {"rope.scaling.type": "yarn"}, "gguf.not_mapped", "yarn"),
    "yarn's strength": ("llama", YARN | {"rope.scaling.yarn_ext_factor": 0.5}, "gguf.not_mapped", "yarn_ext_factor"),
    "half of a head turns": ("llama", {"rope.dimension_count": 8}, "gguf.not_mapped", "8 turn"),
    "some biases": ("llama", {"biased": ("attn_q", "attn_k", "attn_v")}, "gguf.not_mapped", "biases of"),
    "biases of the gate": ("llama", {"biased": ("ffn_up",)}, "checkpoint.unexpected_tensor", "ffn_up.bias"),
    "frequencies of qwen2": ("qwen2", {"extra": FREQUENCIES}, "checkpoint.unexpected_tensor", "rope_freqs"),
    "frequencies of another length": (
        "llama", {"extra": {"rope_freqs.weight": np.ones(3, np.float32)}}, "checkpoint.wrong_shape", "[3]",
    ),
    "long and short frequencies": (
        "phi3", {"extra": {"rope_factors_long.weight": np.ones(8, np.float32)}}, "checkpoint.unexpected_tensor", "long",
    ),
    "a scale beside a weight": (
        "llama", {"extra": {"blk.0.attn_q.scale": np.ones(1, np.float32)}}, "checkpoint.unexpected_tensor", "scale",
    ),
    "a tensor less": ("llama", {"drop": (BASE,)}, "checkpoint.missing_tensor", "input_layernorm"),
    "a layer less": ("llama", {"block_count": 6}, "checkpoint.unexpected_tensor", "says 6 layers, and there are blk.6"),
    "another width": ("llama", {"feed_forward_length": FEED + 1}, "checkpoint.wrong_shape", "down_proj"),
    "not a number": (
        "llama", {"extra": {BASE: np.full(WIDTH, np.nan, np.float32)}}, "checkpoint.non_finite", "non-finite",
    ),
    "epsilon as text": ("llama", {"attention.layer_norm_rms_epsilon": "x"}, "checkpoint.bad_config", "no number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_mapped_is_refused_by_name(tmp_path, case):
    name, more, id, word = REFUSED[case]
    path = tmp_path / "x.gguf"
    path.write_bytes(random_gguf(name, **more))
    with pytest.raises(CheckpointError) as caught:
        load_dequantized(Opened(read_parts(path), None, None, {}), LoadOptions(dequantize=True))  # type: ignore[arg-type]
    assert caught.value.id == id
    assert word in caught.value.message


@with_llama
def test_sizes_that_transformers_refuses_are_told_in_one_line(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(random_gguf("llama", **{"attention.head_count": 7}))
    with pytest.raises(
        CheckpointError, match=r"64\) is not a multiple of the number of attention heads \(7\)"
    ) as caught:
        open_checkpoint(path, LoadOptions(dequantize=True))
    assert caught.value.id == "checkpoint.bad_config"
