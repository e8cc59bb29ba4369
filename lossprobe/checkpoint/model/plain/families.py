"""Which folders are plain: every key of config.json is known and has a value for which a class here is right.

A folder is plain only if nothing about it could need a message: with an unknown key, a value that is not in the tables,
a missing key that changes losses, or tensors that are not exactly the model's, it is left to transformers, and to the
checks of `model_config`, `exact_load` and `unstated`, which say what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.model.plain.family import PlainFamily
from lossprobe.checkpoint.model.plain.gpt2_family import GPT2
from lossprobe.checkpoint.model.plain.language_model import PlainConfig
from lossprobe.checkpoint.model.plain.llama_families import LLAMA, MISTRAL, QWEN2, QWEN3
from lossprobe.checkpoint.model.plain.value_rules import ValueRule, is_flag, is_float_fraction, is_id, is_ids, is_text

STORED: Final = ("F64", "F32", "F16", "BF16")
# Keys that change no loss, with the values that transformers accepts for them.
WITHOUT_EFFECT: Final[Mapping[str, ValueRule]] = {
    "model_type": is_text,
    "dtype": is_text,
    "torch_dtype": is_text,
    "transformers_version": is_text,
    "_name_or_path": is_text,
    "use_cache": is_flag,
    "initializer_range": is_float_fraction,
    "bos_token_id": is_id,
    "eos_token_id": is_ids,
    "pad_token_id": is_id,
    "tie_word_embeddings": is_flag,
}
FAMILIES: Final[Mapping[str, PlainFamily]] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
}


def is_plain(settings: Mapping[str, Any]) -> bool:
    """Return whether every key of a config.json is known here, with a value that is, and these fit together."""
    named = settings.get("model_type")
    family = FAMILIES.get(named) if isinstance(named, str) else None
    if family is None or not family.needed.keys() <= settings.keys():
        return False
    checks = {**WITHOUT_EFFECT, **family.needed, **family.optional}
    known = all(key in checks and checks[key](value) for key, value in settings.items())
    return known and family.configure(settings) is not None


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
    """Return whether the stored tensors are those of a model, a tied one stored once, beside masks that it has not."""
    with torch.device("meta"):
        model = family.model_class(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    names = model.names_of(entries)
    stored = {names[name]: tuple(entries[name].shape) for name in names}
    return stored == wanted and len(stored) == len(names) and all(entry.dtype in STORED for entry in entries.values())
