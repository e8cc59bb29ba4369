"""Which configurations of GPT-2 are plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lossprobe.checkpoint.model.plain.family import PlainFamily
from lossprobe.checkpoint.model.plain.gpt2 import ACTIVATIONS, PlainGPT2, PlainGPT2Config
from lossprobe.checkpoint.model.plain.value_rules import (
    ValueRule,
    is_count,
    is_count_or_none,
    is_flag,
    is_fraction,
    is_small,
    is_text,
    one_of,
)

NEEDED: Final[Mapping[str, ValueRule]] = {
    "vocab_size": is_count,
    "n_positions": is_count,
    "n_embd": is_count,
    "n_layer": is_count,
    "n_head": is_count,
    "activation_function": one_of(*ACTIVATIONS),
    "layer_norm_epsilon": is_small,
}
OPTIONAL: Final[Mapping[str, ValueRule]] = {
    "architectures": one_of(["GPT2LMHeadModel"]),
    "n_inner": is_count_or_none,
    "n_ctx": is_count,
    "task_specific_params": lambda value: value is None or type(value) is dict,
    "scale_attn_weights": one_of(True),
    "scale_attn_by_inverse_layer_idx": one_of(False),
    "reorder_and_upcast_attn": one_of(False),
    "add_cross_attention": one_of(False),
    "attn_pdrop": is_fraction,
    "embd_pdrop": is_fraction,
    "resid_pdrop": is_fraction,
    "summary_activation": one_of(None, "tanh"),
    "summary_first_dropout": is_fraction,
    "summary_proj_to_labels": is_flag,
    "summary_type": is_text,
    "summary_use_proj": is_flag,
}


def _configure(settings: Mapping[str, Any]) -> PlainGPT2Config | None:
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


GPT2: Final = PlainFamily(PlainGPT2, NEEDED, OPTIONAL, "n_layer", _configure)
