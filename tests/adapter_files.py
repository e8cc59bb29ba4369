"""Makes tiny adapters with peft: random ones whose every matrix is filled, on a base of `checkpoint.builders`."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def make_adapter(base: Any, folder: Path, *, seed: int = 1, save: dict[str, Any] | None = None, **config: Any) -> Path:
    """Write an adapter whose matrices are all random, so that none of them is without effect, and return its folder.

    Args:
        base: the model that it is for; it stays as it is.
        folder: where it is written.
        seed: of the random numbers.
        save: arguments of `save_pretrained`.
        config: of `peft.LoraConfig`, beside rank 4, alpha 8.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **config}
        adapted = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**chosen))
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if weight.requires_grad and "magnitude" in name:
                    weight.mul_(1.0 + 0.1 * torch.rand_like(weight))
                elif weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.05)
        adapted.save_pretrained(folder, **(save or {}))
    return folder


def peft_logits(base: Any, folder: Path, ids: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return the logits of peft's own forward pass of an adapter on a base, both in one dtype."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(base).to(dtype), folder).to(dtype).eval()
    with torch.inference_mode():
        logits: torch.Tensor = adapted(input_ids=ids).logits
    return logits


def configure(folder: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> None:
    """Change keys of an adapter_config.json."""
    file = folder / CONFIG
    content = {key: value for key, value in json.loads(file.read_text()).items() if key not in drop} | changes
    file.write_text(json.dumps(content))


def change(folder: Path, changed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Replace the tensors of an adapter by those that a function returns for them."""
    file = folder / WEIGHTS
    safetensors.torch.save_file(changed(safetensors.torch.load_file(file)), file)
