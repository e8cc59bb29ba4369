"""Which configurations of Llama, Mistral, Qwen2 and Qwen3 are plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from lossprobe.checkpoint.model.plain.family import PlainFamily
from lossprobe.checkpoint.model.plain.llama import (
    PlainLlama,
    PlainLlamaConfig,
    PlainMistralConfig,
    PlainQwen2Config,
    PlainQwen3Config,
)
from lossprobe.checkpoint.model.plain.rotary import Llama3Scaling, Rope
from lossprobe.checkpoint.model.plain.value_rules import (
    ValueRule,
    is_base,
    is_count,
    is_count_or_none,
    is_factor,
    is_flag,
    is_fraction,
    is_small,
    one_of,
)

WIDEST_SHARED: Final = 256  # widest heads for which torch itself repeats shared keys
SCALING: Final[Mapping[str, ValueRule]] = {
    "factor": is_factor,
    "low_freq_factor": is_factor,
    "high_freq_factor": is_factor,
    "original_max_position_embeddings": is_count,
}


def _is_scaling(value: Any) -> bool:
    """Return whether a value states the scaling of Llama 3.1 whole, or none."""
    return value is None or (
        type(value) is dict
        and value.keys() == {"rope_type", *SCALING}
        and value["rope_type"] == "llama3"
        and all(rule(value[key]) for key, rule in SCALING.items())
    )


def _is_rope(value: Any) -> bool:
    """Return whether rotary positions are stated whole, without scaling or with that of Llama 3.1."""
    if type(value) is not dict or not is_base(value.get("rope_theta")):
        return False
    rest = {key: each for key, each in value.items() if key != "rope_theta"}
    return rest == {"rope_type": "default"} or _is_scaling(rest)


NEEDED: Final[Mapping[str, ValueRule]] = {
    "vocab_size": is_count,
    "hidden_size": is_count,
    "intermediate_size": is_count,
    "num_hidden_layers": is_count,
    "num_attention_heads": is_count,
    "hidden_act": one_of("silu"),
    "max_position_embeddings": is_count,
    "rms_norm_eps": is_small,
}
OPTIONAL: Final[Mapping[str, ValueRule]] = {
    "rope_parameters": _is_rope,
    "rope_theta": is_base,
    "rope_scaling": _is_scaling,
    "attention_dropout": is_fraction,
}
WITHOUT_WINDOWS: Final[Mapping[str, ValueRule]] = {  # of Qwen, whose windows count only where they are used
    "use_sliding_window": one_of(False),
    "sliding_window": is_count_or_none,
    "max_window_layers": is_count,
    "layer_types": lambda value: type(value) is list and all(each == "full_attention" for each in value),
    "use_mrope": one_of(False),
}


def _rope(settings: Mapping[str, Any]) -> Rope | None:
    """Return the rotary positions of settings whose keys are all known; None where they do not fit together."""
    stated = settings.get("rope_parameters")
    if stated is None:
        stated = {"rope_theta": settings.get("rope_theta"), **(settings.get("rope_scaling") or {})}
    elif not {"rope_theta", "rope_scaling"}.isdisjoint(settings):
        return None
    if stated["rope_theta"] is None:
        return None
    if "factor" not in stated:
        return Rope(stated["rope_theta"])
    scaling = Llama3Scaling(**{key: stated[key] for key in SCALING})
    ordered = scaling.low_freq_factor < scaling.high_freq_factor
    longer = scaling.original_max_position_embeddings < settings["max_position_embeddings"]
    return Rope(stated["rope_theta"], scaling) if ordered and longer else None


def _shape(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the fields that all of these have; None where they do not fit together."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    groups = settings.get("num_key_value_heads") or heads
    head = settings.get("head_dim") or width // heads
    rope, layers = _rope(settings), settings["num_hidden_layers"]
    fits = not (width % heads or heads % groups or head % 2) and head <= WIDEST_SHARED
    if rope is None or not fits or len(settings.get("layer_types", range(layers))) != layers:
        return None
    return {
        "vocab_size": settings["vocab_size"],
        "tie_word_embeddings": settings.get("tie_word_embeddings", False),
        "hidden_size": width,
        "intermediate_size": settings["intermediate_size"],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head,
        "max_position_embeddings": settings["max_position_embeddings"],
        "rms_norm_eps": settings["rms_norm_eps"],
        "rope": rope,
    }


def _family(
    config_class: type[PlainLlamaConfig],
    model: str,
    needed: Mapping[str, ValueRule],
    optional: Mapping[str, ValueRule],
    biases: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> PlainFamily:
    """Return a family.

    Args:
        config_class: its configuration.
        model: the name of its class in transformers.
        needed: keys that must be stated beside those of all.
        optional: further keys that may be beside those of all.
        biases: returns from the settings where the family has biases and norms of heads.
    """

    def configure(settings: Mapping[str, Any]) -> PlainLlamaConfig | None:
        shape = _shape(settings)
        return None if shape is None else config_class(**shape, **biases(settings))

    may = {"architectures": one_of([model]), **OPTIONAL, **optional}
    return PlainFamily(PlainLlama, {**NEEDED, **needed}, may, "num_hidden_layers", configure)


def _of_attention(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return where attention has biases: in all four matrices or in none."""
    bias = settings.get("attention_bias", False)
    return {"attention_bias": bias, "output_bias": bias}


LLAMA: Final = _family(
    PlainLlamaConfig,
    "LlamaForCausalLM",
    {},
    {
        "num_key_value_heads": is_count_or_none,
        "head_dim": is_count_or_none,
        "attention_bias": is_flag,
        "mlp_bias": is_flag,
        "pretraining_tp": one_of(1),
    },
    lambda settings: {**_of_attention(settings), "mlp_bias": settings.get("mlp_bias", False)},
)
MISTRAL: Final = _family(
    PlainMistralConfig,
    "MistralForCausalLM",
    {"num_key_value_heads": is_count, "sliding_window": one_of(None)},
    {"head_dim": is_count_or_none},
    lambda _: {},
)
QWEN2: Final = _family(
    PlainQwen2Config,
    "Qwen2ForCausalLM",
    {"num_key_value_heads": is_count},
    WITHOUT_WINDOWS,
    lambda _: {"attention_bias": True},
)
QWEN3: Final = _family(
    PlainQwen3Config,
    "Qwen3ForCausalLM",
    {"num_key_value_heads": is_count, "head_dim": is_count},
    {**WITHOUT_WINDOWS, "attention_bias": is_flag},
    lambda settings: {**_of_attention(settings), "head_norms": True},
)
