"""Makes tiny models with random weights of any causal family of the installed transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoint import builders
from families.table import OVERRIDES, SIZES
from transformers.configuration_utils import SubConfigSpec
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

SPECIAL_IDS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "decoder_start_token_id": 2}


def settings(family: str) -> dict[str, Any]:
    """Return the configuration of a tiny model: the keys of `SIZES` that the family has, with its `OVERRIDES`."""
    return _merge(_sizes(transformers.CONFIG_MAPPING[family]), OVERRIDES.get(family, {}))


def save(family: str, path: Path, **changes: Any) -> None:
    """Write a random model of a family with a small tokenizer, by `save_pretrained`."""
    config = transformers.AutoConfig.for_model(family, **_merge(settings(family), changes))
    torch.manual_seed(0)
    model = _whole_class(config)(config)
    randomise(model)
    builders.save(model, path)


def randomise(model: Any) -> None:
    """Draw random weights, large enough that an error in the forward pass changes the losses visibly."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.15 * noise if weight.ndim > 1 else weight + 0.1 * noise)


def _whole_class(config: Any) -> Any:
    """Return the class of which checkpoints of a family are saved: the multimodal one if the family has one."""
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if causal.config_class is type(config):
        return causal
    return MODEL_FOR_MULTIMODAL_LM_MAPPING.get(type(config), causal)


def _sizes(config_class: Any) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    values = {}
    for name, value in SIZES.items():
        own = [key for key in (name, config_class.attribute_map.get(name, name)) if key in fields]
        values |= dict.fromkeys(own, value)
    for name, small in SPECIAL_IDS.items():
        default = getattr(fields.get(name), "default", None)
        if isinstance(default, int) and default >= SIZES["vocab_size"]:
            values[name] = small
    for name, spec in config_class.sub_configs_defaults.items():
        nested = transformers.CONFIG_MAPPING[spec.model_type] if isinstance(spec, SubConfigSpec) else spec
        if dataclasses.is_dataclass(nested) and name in fields:
            values[name] = {"model_type": nested.model_type} | _sizes(nested)
    return values


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {key: _merge(values.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)}
    return values | changes | nested
