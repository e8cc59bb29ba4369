"""Decide whether the weights of a folder are read layer by layer, and say so."""

from __future__ import annotations

import math
from typing import Any

import torch

from lossprobe.checkpoint.files.stored_tensors import DTYPES
from lossprobe.checkpoint.model.free_memory import free_memory
from lossprobe.checkpoint.model.spread import HOW_TO_INSTALL, can_spread, gpus_with_room
from lossprobe.checkpoint.options import ALWAYS, NEVER, LoadOptions
from lossprobe.errors import CheckpointError
from lossprobe.units import visible


def needed_bytes(weights: Any, dtype: torch.dtype) -> int:
    """Return how many bytes of memory it takes to load some weights whole, as stored and in the dtype of the pass.

    Args:
        weights: the stored tensors.
        dtype: dtype of the pass.
    """
    needed: int = sum(math.prod(entry.shape) for entry in weights.entries.values()) * dtype.itemsize
    plain = weights.unquantized.values()
    return needed + sum(int(entry.stop - entry.start) for entry in plain if DTYPES.get(entry.dtype) != dtype)


def why_streamed(weights: Any, dtype: torch.dtype, options: LoadOptions) -> str | None:
    """Return why the weights are read layer by layer, "" where the user asked for it; None where they are not.

    Args:
        weights: the stored tensors.
        dtype: dtype of the pass.
        options: as in `open_checkpoint`.
    """
    if options.stream_weights in (ALWAYS, NEVER):
        return "" if options.stream_weights == ALWAYS else None
    if gpus_for(weights, dtype, options):
        return None
    needed = needed_bytes(weights, dtype)
    for place in dict.fromkeys(("cpu", options.device)):
        free = free_memory(place)
        if free is not None and needed > free:
            where = "memory" if place == "cpu" else f"the memory of {place}"
            several = place != "cpu" and gpus_with_room(needed, place)  # then accelerate is missing
            more = f" (over {len(several)} GPUs with {HOW_TO_INSTALL})" if several else ""
            return f"its weights need {needed / 1e9:,.3g} GB, {free / 1e9:,.3g} GB of {where} are free{more}"
    return None


def gpus_for(weights: Any, dtype: torch.dtype, options: LoadOptions) -> list[int]:
    """Return the numbers of the GPUs over which layers are spread; none where the model runs on one device.

    Args:
        weights: the stored tensors.
        dtype: dtype of the pass.
        options: as in `open_checkpoint`; only `device` "cuda", without a number, means all GPUs.
    """
    if options.device != "cuda" or options.stream_weights == ALWAYS:
        return []
    needed, free = needed_bytes(weights, dtype), free_memory("cpu")
    if free is not None and needed > free:  # the layers go through it
        return []
    return gpus_with_room(needed, options.device) if can_spread() else []


def not_streamed(shown: str, why: str, reason: object, options: LoadOptions) -> str:
    """Return the notice about weights that should be read layer by layer and cannot be.

    Args:
        shown: name of the checkpoint.
        why: as of `why_streamed`.
        reason: why they cannot.
        options: as in `open_checkpoint`.

    Raises:
        CheckpointError: `checkpoint.not_streamed`: the user asked for it.
    """
    what = f"{shown}: cannot be read layer by layer: {visible(str(reason), 160)}"
    if options.stream_weights == ALWAYS:
        raise CheckpointError("checkpoint.not_streamed", what, hint="`stream_weights` auto or never reads it whole")
    return f"{what}, though {why}"


def refuse_streaming(shown: str, kind: str, options: LoadOptions) -> None:
    """Refuse the option for a kind of checkpoint whose weights are always read whole.

    Raises:
        CheckpointError: `checkpoint.not_streamed`: the user asked for it.
    """
    if options.stream_weights == ALWAYS:
        not_streamed(shown, "", f"{kind} is read whole", options)
