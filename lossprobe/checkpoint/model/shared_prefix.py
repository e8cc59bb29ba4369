"""Run inputs that start alike after one pass of their common start, whose keys and values the model keeps.

This is done only for models whose layers keep plain keys and values of attention, and only where a probe shows that the
hidden states are those of the whole inputs but for rounding.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lossprobe.checkpoint.interface import PADDED, Checkpoint

PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)  # not their subclasses, which keep more than keys and values


class CachedPrefix:
    """Runs the body of a model on inputs whose start was run before.

    Args:
        body: the body of a transformers model.
        restore: restores the state of the model before a pass.
    """

    def __init__(self, body: Any, restore: Callable[[], None]) -> None:
        self._body = body
        self._restore = restore
        self._kept = name_of_kept(body)

    @torch.inference_mode()
    def run(self, ids: torch.Tensor) -> Any:
        """Return what the model keeps of some starts, int64 ids [B, P]."""
        self._restore()
        return getattr(self._body(input_ids=ids, use_cache=True), self._kept)

    @torch.inference_mode()
    def hidden_after(self, prefix: Any, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states [R, T, D] of the rest of some inputs.

        Args:
            prefix: what `run` returned for their starts; it stays as it is.
            rows: int64 [R], which of the starts each input has.
            ids: int64 [R, T], what follows the start, padded on the right.
        """
        kept = copy.copy(prefix)
        kept.layers = [copy.copy(layer) for layer in prefix.layers]
        kept.batch_select_indices(rows)
        self._restore()
        output: torch.Tensor = self._body(input_ids=ids, **{self._kept: kept}, use_cache=True).last_hidden_state
        return output


def name_of_kept(body: Any) -> str:
    """Return how the body of a model names its keys and values, as an argument and in its output.

    transformers 5.24 has renamed them to `cache`, and warns of the older name, which the code of other authors keeps.
    """
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


def find_prefix(
    checkpoint: Checkpoint,
    body: Any,
    restore: Callable[[], None],
    same: Callable[[torch.Tensor, torch.Tensor], bool],
    row: Callable[[int], torch.Tensor],
) -> CachedPrefix | None:
    """Return what runs inputs of a model after their common start; None where that would change results.

    It would where positions depend on the length of the input, and for the sums of routers, which count each token.

    Args:
        checkpoint: the model.
        body: its body.
        restore: restores the state of the model before a pass.
        same: tells whether two results [N, D] differ by no more than rounding.
        row: gives a row of ids [T] of a probe, a different one for each number.
    """
    facts, shared = checkpoint.facts, CachedPrefix(body, restore)
    if facts.head == "full" or facts.batching != PADDED or facts.router is not None:
        return None
    return shared if is_exact(shared, checkpoint.hidden, same, torch.stack([row(0), row(1)])) else None


def is_exact(
    shared: CachedPrefix,
    hidden: Callable[[torch.Tensor], torch.Tensor],
    same: Callable[[torch.Tensor, torch.Tensor], bool],
    probe: torch.Tensor,
) -> bool:
    """Return whether inputs that are run after their start have the hidden states of the whole inputs.

    Args:
        shared: runs them.
        hidden: runs whole inputs [B, T].
        same: tells whether two results [N, D] differ by no more than rounding.
        probe: int64 [2, T], two rows of ids.
    """
    half = probe.shape[1] // 2
    whole = probe[[1, 1, 0]].clone()
    whole[1, half:] = probe[0, half:]  # the first two inputs start alike
    try:
        prefix = shared.run(probe[:, :half])
        if not all(type(layer) in PLAIN_LAYERS for layer in prefix.layers):
            return False
        rest = shared.hidden_after(prefix, torch.tensor([1, 1, 0], device=probe.device), whole[:, half:])
    except Exception:  # noqa: BLE001 - the code of any family, which may keep something else or nothing
        return False
    return same(rest.flatten(0, 1), hidden(whole)[:, half:].flatten(0, 1))
