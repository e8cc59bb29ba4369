"""How far losses in half precision are from those of the same weights with float64 arithmetic."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from checkpoint import builders

IDS = torch.arange(48).view(2, 24) % builders.VOCABULARY


def errors(checkpoint: Any, path: Any, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean square error of a checkpoint's logits, and of those of transformers, float64 scalars.

    Args:
        checkpoint: the opened checkpoint.
        path: its folder.
        dtype: the dtype in which it was opened; the reference has its weights rounded to it.
    """
    plain = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    with torch.inference_mode():
        logits = checkpoint.logits(checkpoint.hidden(IDS).flatten(0, 1)).double()
        usual = plain(IDS).logits.flatten(0, 1).double()
        if hasattr(plain, "set_experts_implementation"):
            plain.set_experts_implementation("eager")  # the faster code of experts takes no float64
        exact = plain.double()(IDS).logits.flatten(0, 1)
    return (logits - exact).square().mean(), (usual - exact).square().mean()
