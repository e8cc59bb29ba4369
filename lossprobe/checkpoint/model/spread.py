"""Spread the layers of a model over several GPUs of one process; accelerate moves activations between them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from lossprobe.checkpoint.model.free_memory import free_memory

HOW_TO_INSTALL = 'pip install "lossprobe[accelerate]"'
ROOM = 0.9  # share of the free memory that weights may take; the rest is for activations and logits


def gpus_with_room(needed: int, device: str) -> list[int]:
    """Return the numbers of all GPUs where some weights exceed the room of one and not of all; else none.

    Args:
        needed: bytes of the weights.
        device: where the model is to run; only "cuda", without a number, means all GPUs.
    """
    if device != "cuda" or torch.cuda.device_count() < 2:
        return []
    free = [free_memory(f"cuda:{number}") or 0 for number in range(torch.cuda.device_count())]
    first = free[torch.cuda.current_device()]
    return list(range(len(free))) if ROOM * first < needed <= ROOM * sum(free) else []


def can_spread() -> bool:
    """Return whether accelerate is installed."""
    return importlib.util.find_spec("accelerate") is not None


def spread_over(model: Any, gpus: Sequence[int]) -> str:
    """Move the layers of a model to several GPUs, and return the device of its head.

    Args:
        model: the model, on the CPU; it is changed in place.
        gpus: their numbers.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    whole_layers = list(model._no_split_modules or ())
    most = {number: int(ROOM * (free_memory(f"cuda:{number}") or 0)) for number in gpus}
    balanced = get_balanced_memory(model, most, whole_layers, dtype=model.dtype)
    placed = infer_auto_device_map(model, balanced, whole_layers, dtype=model.dtype)
    return dispatched(model, placed)


def dispatched(model: Any, placed: dict[str, Any]) -> str:
    """Move parts of a model to devices, and return the device of its head.

    Args:
        model: the model, on the CPU; it is changed in place.
        placed: name of each part → its device.
    """
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_module

    dispatch_model(model, placed, force_hooks=True)
    # The hook of the whole model would move results back to where the ids came from; and a copy of the model, as one
    # around a stand-in for the body, would run the original.
    remove_hook_from_module(model)
    vars(model).pop("forward", None)  # accelerate leaves the method of the original there
    return str(model.get_output_embeddings().weight.device)
