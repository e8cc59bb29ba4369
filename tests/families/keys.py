"""Finds the configuration keys that change a model's logits while its tensors stay the same."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

IDS = torch.arange(3, 51)[None] % 40 + 5  # long enough for windows of 16 tokens to matter


def decisive_keys(model: Any) -> set[str]:
    """Return the keys of a model's text configuration that change its logits when only their value is changed."""
    text = model.config.get_text_config()
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = [field.name for field in dataclasses.fields(text) if field.name not in common]
    before = _logits(model)
    return {name for name in names if _changes(model, name, before)}


def _changes(model: Any, name: str, before: torch.Tensor) -> bool:
    """Return whether some other value of a key changes the logits."""
    value = getattr(model.config.get_text_config(), name)
    for other in _others(value):
        config = copy.deepcopy(model.config)
        try:
            setattr(config.get_text_config(), name, other)
            changed = type(model)(config).eval()
            changed.load_state_dict(model.state_dict())
            if not torch.allclose(_logits(changed), before, atol=1e-4, rtol=0):
                return True
        except Exception:  # noqa: BLE001 - the family refuses the value, or it changes the shapes of tensors
            continue
    return False


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [2 * value or 1, value / 2 if isinstance(value, float) else value // 2, value * 100]
    if isinstance(value, str) and value in ACT2FN:
        return ["relu" if value != "relu" else "gelu"]
    return []


@torch.inference_mode()
def _logits(model: Any) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits
