"""What the keys and tensors of a GGUF file are in transformers, for the architectures that are mapped completely.

A key that is not listed here is refused by name, since it may change what the model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.gguf.header import GGUFHeader, GGUFTensor
from lossprobe.checkpoint.gguf.key_sizes import KeySizes, not_mapped
from lossprobe.units import visible

Change = Callable[[torch.Tensor], torch.Tensor]
FREQUENCIES = "rope_freqs.weight"
SIZES = ("embedding_length", "block_count", "feed_forward_length", "attention.head_count")
ROTARY = ("attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
          "rope.freq_base", "attention.layer_norm_rms_epsilon")  # fmt: skip
SCALING = ("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length")
ENDS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight"}  # fmt: skip
LLAMA = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm"}  # fmt: skip
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
GEMMA = {**LLAMA, "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}  # fmt: skip
GPT2 = {"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
        "attn_norm": "ln_1", "ffn_norm": "ln_2"}  # fmt: skip
GPT2_ENDS = {"token_embd.weight": "transformer.wte.weight", "position_embd.weight": "transformer.wpe.weight",
             "output_norm.weight": "transformer.ln_f.weight", "output_norm.bias": "transformer.ln_f.bias",
             "output.weight": "lm_head.weight"}  # fmt: skip
PHI3 = {**LLAMA, "attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}


@dataclass(frozen=True)
class Architecture:
    """How an architecture of GGUF is named in transformers.

    Attributes:
        model: model_type and the start of the class names, such as "Llama".
        parts: tensor of a layer → its name in transformers' layer.
        ends: the other tensors by their whole names.
        keys: the keys that it may have, beside those of every architecture, without its name.
        biased: tensors of a layer that may have a bias.
        scaled: whether positions may be scaled.
        norm_plus_one: whether stored norms are larger by one than transformers'.
    """

    model: str
    parts: Mapping[str, str]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    keys: tuple[str, ...] = ROTARY
    biased: tuple[str, ...] = ()
    scaled: bool = False
    norm_plus_one: bool = False


CLASSES = {"GPT2": "GPT2LMHeadModel"}  # those that are not named as the others
CAPS = ("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")
ARCHITECTURES = {
    "llama": Architecture("Llama", LLAMA, biased=("attn_q", "attn_k", "attn_v", "attn_output"), scaled=True),
    "qwen2": Architecture("Qwen2", LLAMA, biased=("attn_q", "attn_k", "attn_v"), scaled=True),
    "qwen3": Architecture("Qwen3", LLAMA | HEAD_NORMS, scaled=True),
    "gemma2": Architecture("Gemma2", GEMMA, keys=(*ROTARY, *CAPS), norm_plus_one=True),
    "gemma3": Architecture(
        "Gemma3", GEMMA | HEAD_NORMS, keys=(*ROTARY, *CAPS[1:], "rope.freq_base_swa"), scaled=True, norm_plus_one=True
    ),
    "gpt2": Architecture("GPT2", GPT2, GPT2_ENDS, ("attention.layer_norm_epsilon",), tuple(GPT2)),
    "phi3": Architecture("Phi3", PHI3, keys=(*ROTARY, "rope.scaling.original_context_length")),
}


@dataclass(frozen=True)
class Plan:
    """How a GGUF file becomes a model of transformers.

    Attributes:
        class_name: transformers' class.
        config: its configuration.
        names: GGUF's tensor → transformers' name and what is done to the values.
        frequencies: name of a tensor that divides the frequencies of the positions; "" without one.
        factors: where that tensor lies.
    """

    class_name: str
    config: Any
    names: Mapping[str, tuple[str, Change]]
    frequencies: str = ""
    factors: tuple[Path, GGUFTensor] | None = None

    def renamed(self, name: str) -> tuple[str, Change] | None:
        """Return a tensor's name in transformers and what is done to its values; None where it is not mapped."""
        return self.names.get(name)


def plan_of(headers: Sequence[GGUFHeader]) -> Plan:
    """Return how a file becomes a model of transformers.

    Raises:
        CheckpointError: an architecture or a key that is not mapped, or an impossible value.
    """
    first = headers[0]
    name = first.text("general.architecture")
    if name not in ARCHITECTURES:
        what = f"architecture {visible(name, 40)} is not mapped; {', '.join(ARCHITECTURES)} are"
        raise not_mapped(first.path, what)
    tensors = {key: (header.path, tensor) for header in headers for key, tensor in header.tensors.items()}
    sizes = KeySizes(first, name)
    about = ARCHITECTURES[name]
    sizes.refuse_unknown_keys((*SIZES, *about.keys, *(SCALING if about.scaled else ())))
    biases = {part for part in about.biased if f"blk.0.{part}.bias" in tensors}
    factors = tensors.get(FREQUENCIES) if name == "llama" else None
    config = _config(about, sizes, tensors, biases)
    kind = CLASSES.get(about.model, f"{about.model}ForCausalLM")
    return Plan(kind, config, _names(name, about, sizes, biases), FREQUENCIES if factors else "", factors)


def _config(about: Architecture, sizes: KeySizes, tensors: Mapping[str, Any], biases: set[str]) -> Any:
    """Return transformers' configuration."""
    vocabulary = tensors.get("token_embd.weight")
    if vocabulary is None:
        raise refusal("checkpoint.missing_tensor", sizes.path, "tensor token_embd.weight is missing")
    common = {
        "vocab_size": vocabulary[1].shape[0],
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    length, layers = sizes.whole("context_length", 2048), sizes.whole("block_count")
    width, heads = sizes.whole("embedding_length"), sizes.whole("attention.head_count")
    if about.model == "GPT2":
        return transformers.GPT2Config(
            **common, n_positions=length, n_embd=width, n_layer=layers, n_head=heads,
            n_inner=sizes.whole("feed_forward_length"), activation_function="gelu_new",
            layer_norm_epsilon=sizes.real("attention.layer_norm_epsilon", 1e-5),
        )  # fmt: skip
    common |= {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": sizes.whole("feed_forward_length"), "head_dim": sizes.head,
        "num_key_value_heads": sizes.whole("attention.head_count_kv", heads), "max_position_embeddings": length,
        "rms_norm_eps": sizes.real("attention.layer_norm_rms_epsilon", 0.0), "rope_parameters": sizes.rope(),
    }  # fmt: skip
    return _EXTRAS[about.model](sizes, biases, common)


def _llama(sizes: KeySizes, biases: set[str], common: dict[str, Any]) -> Any:
    if biases and len(biases) != 4:
        raise not_mapped(sizes.path, f"biases of {', '.join(sorted(biases))} alone")
    return transformers.LlamaConfig(**common, attention_bias=bool(biases), mlp_bias=False)


def _qwen2(sizes: KeySizes, biases: set[str], common: dict[str, Any]) -> Any:
    if len(biases) != 3:
        raise not_mapped(sizes.path, "no biases of attn_q, attn_k and attn_v")
    del common["head_dim"]
    if sizes.head * sizes.whole("attention.head_count") != sizes.whole("embedding_length"):
        raise not_mapped(sizes.path, "heads whose sizes do not add up to the model's width")
    return transformers.Qwen2Config(**common, use_sliding_window=False)


def _qwen3(_sizes: KeySizes, _biases: set[str], common: dict[str, Any]) -> Any:
    return transformers.Qwen3Config(**common, attention_bias=False, use_sliding_window=False)


def _scalar(sizes: KeySizes, largest: int) -> int:
    """Return query_pre_attn_scalar: the width of a head, but for the largest model, known by its layers."""
    if sizes.whole("block_count") == largest:
        return sizes.whole("embedding_length") // sizes.whole("attention.head_count")
    return sizes.head


def _gemma2(sizes: KeySizes, _biases: set[str], common: dict[str, Any]) -> Any:
    kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(common["num_hidden_layers"])]
    return transformers.Gemma2Config(
        **common, layer_types=kinds, sliding_window=sizes.whole("attention.sliding_window", 4096),
        query_pre_attn_scalar=_scalar(sizes, 46), hidden_activation="gelu_pytorch_tanh",
        attn_logit_softcapping=sizes.real("attn_logit_softcapping", 50.0),
        final_logit_softcapping=sizes.real("final_logit_softcapping", 30.0),
    )  # fmt: skip


def _gemma3(sizes: KeySizes, _biases: set[str], common: dict[str, Any]) -> Any:
    kinds = [
        "full_attention" if layer % 6 == 5 else "sliding_attention" for layer in range(common["num_hidden_layers"])
    ]
    local = {"rope_type": "default", "rope_theta": sizes.real("rope.freq_base_swa", 10000.0)}
    common["rope_parameters"] = {"full_attention": common["rope_parameters"], "sliding_attention": local}
    return transformers.Gemma3TextConfig(
        **common, layer_types=kinds, sliding_window=sizes.whole("attention.sliding_window"),
        query_pre_attn_scalar=_scalar(sizes, 62), hidden_activation="gelu_pytorch_tanh", attn_logit_softcapping=None,
        final_logit_softcapping=sizes.real("final_logit_softcapping", 0.0) or None,
    )  # fmt: skip


def _phi3(_sizes: KeySizes, _biases: set[str], common: dict[str, Any]) -> Any:
    return transformers.Phi3Config(**common, sliding_window=None)


_EXTRAS = {"Llama": _llama, "Qwen2": _qwen2, "Qwen3": _qwen3, "Gemma2": _gemma2, "Gemma3": _gemma3, "Phi3": _phi3}


def _names(name: str, about: Architecture, sizes: KeySizes, biases: set[str]) -> dict[str, tuple[str, Change]]:
    """Return every tensor that the file may have with its name in transformers and what is done to its values."""
    less = _minus_one if about.norm_plus_one else _same
    found: dict[str, tuple[str, Change]] = {
        own: (theirs, less if "norm" in own else _same) for own, theirs in about.ends.items()
    }
    heads = sizes.whole("attention.head_count")
    counts = {"attn_q": heads, "attn_k": sizes.whole("attention.head_count_kv", heads)} if name == "llama" else {}
    base = "transformer.h" if name == "gpt2" else "model.layers"
    for layer in range(sizes.whole("block_count")):
        for own, theirs in about.parts.items():
            change: Change = _same
            if own in counts:
                change = partial(_halves, heads=counts[own])
            elif "norm" in own:
                change = less
            elif name == "gpt2":
                change = _transposed
            place = f"{base}.{layer}.{theirs}"
            found[f"blk.{layer}.{own}.weight"] = (f"{place}.weight", change)
            if own in biases:
                found[f"blk.{layer}.{own}.bias"] = (f"{place}.bias", change)
    return found


def _same(values: torch.Tensor) -> torch.Tensor:
    return values


def _minus_one(values: torch.Tensor) -> torch.Tensor:
    return values - 1.0


def _transposed(values: torch.Tensor) -> torch.Tensor:
    return values.t() if values.dim() == 2 else values


def _halves(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Return rows of queries or keys as halves of a head, where GGUF's llama has pairs of neighbours."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).transpose(1, 2).reshape(values.shape)
