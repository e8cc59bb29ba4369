"""Which folders are plain: every key of config.json is known and has a value for which a class here is right.

A folder is plain only if nothing about it could need a message: with an unknown key, a value that is not in the tables,
a missing key that changes losses, or tensors that are not exactly the model's, it is left to transformers, and to the
checks of `model_config`, `exact_load` and `unstated`, which say what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.model.plain.gpt2 import ACTIVATIONS, PlainGPT2, PlainGPT2Config
from lossprobe.checkpoint.model.plain.language_model import PlainConfig, PlainLM
from lossprobe.checkpoint.model.plain.llama import PlainLlama, PlainLlamaConfig

ValueRule = Callable[[Any], bool]
STORED: Final = ("F64", "F32", "F16", "BF16")
LARGEST_COUNT: Final = 1 << 24  # shapes of such sizes can be written down without an overflow
WIDEST_SHARED: Final = 256  # widest heads for which torch itself repeats shared keys


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST_COUNT


def _count_or_none(value: Any) -> bool:
    return value is None or _count(value)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _text(value: Any) -> bool:
    return type(value) is str


def _fraction(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _small(value: Any) -> bool:
    return type(value) is float and 0 < value < 1


def _base(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 1


def _id(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _ids(value: Any) -> bool:
    return _id(value) or (type(value) is list and bool(value) and None not in value and all(map(_id, value)))


def _one_of(*allowed: Any) -> ValueRule:
    return lambda value: any(type(value) is type(each) and value == each for each in allowed)


def _rope(value: Any) -> bool:
    """Return whether rotary positions are stated, and are of the first kind, without scaling."""
    return (
        type(value) is dict
        and value.keys() == {"rope_theta", "rope_type"}
        and value["rope_type"] == "default"
        and _base(value["rope_theta"])
    )


# Keys that change no loss, with the values that transformers accepts for them.
WITHOUT_EFFECT: Final[Mapping[str, ValueRule]] = {
    "model_type": _text,
    "dtype": _text,
    "torch_dtype": _text,
    "transformers_version": _text,
    "_name_or_path": _text,
    "use_cache": _flag,
    "initializer_range": _fraction,
    "bos_token_id": _id,
    "eos_token_id": _ids,
    "pad_token_id": _id,
    "tie_word_embeddings": _flag,
}
LLAMA_NEEDED: Final[Mapping[str, ValueRule]] = {
    "vocab_size": _count,
    "hidden_size": _count,
    "intermediate_size": _count,
    "num_hidden_layers": _count,
    "num_attention_heads": _count,
    "hidden_act": _one_of("silu"),
    "max_position_embeddings": _count,
    "rms_norm_eps": _small,
}
LLAMA_OPTIONAL: Final[Mapping[str, ValueRule]] = {
    "architectures": _one_of(["LlamaForCausalLM"]),
    "num_key_value_heads": _count_or_none,
    "head_dim": _count_or_none,
    "rope_parameters": _rope,
    "rope_theta": _base,
    "rope_scaling": _one_of(None),
    "attention_bias": _flag,
    "mlp_bias": _flag,
    "attention_dropout": _fraction,
    "pretraining_tp": _one_of(1),
}
GPT2_NEEDED: Final[Mapping[str, ValueRule]] = {
    "vocab_size": _count,
    "n_positions": _count,
    "n_embd": _count,
    "n_layer": _count,
    "n_head": _count,
    "activation_function": _one_of(*ACTIVATIONS),
    "layer_norm_epsilon": _small,
}
GPT2_OPTIONAL: Final[Mapping[str, ValueRule]] = {
    "architectures": _one_of(["GPT2LMHeadModel"]),
    "n_inner": _count_or_none,
    "scale_attn_weights": _one_of(True),
    "scale_attn_by_inverse_layer_idx": _one_of(False),
    "reorder_and_upcast_attn": _one_of(False),
    "add_cross_attention": _one_of(False),
    "attn_pdrop": _fraction,
    "embd_pdrop": _fraction,
    "resid_pdrop": _fraction,
    "summary_activation": _one_of(None, "tanh"),
    "summary_first_dropout": _fraction,
    "summary_proj_to_labels": _flag,
    "summary_type": _text,
    "summary_use_proj": _flag,
}


def _llama(settings: Mapping[str, Any]) -> PlainLlamaConfig | None:
    """Return the configuration of a Llama whose keys are all known; None where they do not fit together."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    groups = settings.get("num_key_value_heads") or heads
    rope = settings.get("rope_parameters", settings)
    stated_twice = rope is not settings and not {"rope_theta", "rope_scaling"}.isdisjoint(settings)
    if "rope_theta" not in rope or stated_twice or width % heads or heads % groups:
        return None
    head = settings.get("head_dim") or width // heads
    if head % 2 or head > WIDEST_SHARED:
        return None
    return PlainLlamaConfig(
        vocab_size=settings["vocab_size"],
        tie_word_embeddings=settings.get("tie_word_embeddings", False),
        hidden_size=width,
        intermediate_size=settings["intermediate_size"],
        num_hidden_layers=settings["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head,
        max_position_embeddings=settings["max_position_embeddings"],
        rms_norm_eps=settings["rms_norm_eps"],
        rope_theta=rope["rope_theta"],
        attention_bias=settings.get("attention_bias", False),
        mlp_bias=settings.get("mlp_bias", False),
    )


def _gpt2(settings: Mapping[str, Any]) -> PlainGPT2Config | None:
    """Return the configuration of a GPT-2 whose keys are all known; None where they do not fit together."""
    width = settings["n_embd"]
    if width % settings["n_head"]:
        return None
    return PlainGPT2Config(
        vocab_size=settings["vocab_size"],
        tie_word_embeddings=settings.get("tie_word_embeddings", True),
        n_positions=settings["n_positions"],
        n_embd=width,
        n_layer=settings["n_layer"],
        n_head=settings["n_head"],
        n_inner=settings.get("n_inner") or 4 * width,
        activation_function=settings["activation_function"],
        layer_norm_epsilon=settings["layer_norm_epsilon"],
    )


@dataclass(frozen=True)
class PlainFamily:
    """A family for which there is a class here.

    Attributes:
        model_class: the class.
        needed: keys that must be stated, with their values.
        optional: further keys that may be.
        layers: the key that states the number of layers.
        configure: makes the configuration of settings that have passed; None where they do not fit together.
    """

    model_class: Callable[[Any], PlainLM]
    needed: Mapping[str, ValueRule]
    optional: Mapping[str, ValueRule]
    layers: str
    configure: Callable[[Mapping[str, Any]], PlainConfig | None]


FAMILIES: Final[Mapping[str, PlainFamily]] = {
    "llama": PlainFamily(PlainLlama, LLAMA_NEEDED, LLAMA_OPTIONAL, "num_hidden_layers", _llama),
    "gpt2": PlainFamily(PlainGPT2, GPT2_NEEDED, GPT2_OPTIONAL, "n_layer", _gpt2),
}


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Return whether every key of a config.json is known here, with a value that is."""
    named = settings.get("model_type")
    family = FAMILIES.get(named) if isinstance(named, str) else None
    if family is None or not family.needed.keys() <= settings.keys():
        return False
    checks = {**WITHOUT_EFFECT, **family.needed, **family.optional}
    return all(key in checks and checks[key](value) for key, value in settings.items())


def plain_model(settings: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> tuple[Any, PlainConfig] | None:
    """Return class and configuration of a plain model; None where it is left to transformers.

    Args:
        settings: the content of config.json, for which `is_plain` holds.
        entries: the stored tensors by name.
    """
    family = FAMILIES[settings["model_type"]]
    within = settings[family.layers] <= len(entries) and (settings.get("pad_token_id") or 0) < settings["vocab_size"]
    config = family.configure(settings) if within else None
    if config is None or not _holds_exactly(family, config, entries):
        return None
    return family.model_class, config


def _holds_exactly(family: PlainFamily, config: PlainConfig, entries: Mapping[str, TensorEntry]) -> bool:
    """Return whether the stored tensors are those of a model, a tied one stored once."""
    with torch.device("meta"):
        model = family.model_class(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    stored = {name: tuple(entry.shape) for name, entry in entries.items()}
    return stored == wanted and all(entry.dtype in STORED for entry in entries.values())
