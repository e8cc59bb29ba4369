"""A model that computes as trainers do with bf16=True: float32 weights, under torch's autocast to bfloat16."""

from __future__ import annotations

from typing import Any

import torch

from lossprobe.checkpoint.interface import CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.causal_lm import CausalLM

AUTOCAST = "autocast"  # the word of the option `dtype`
AUTOCAST_DTYPE = "bfloat16 autocast"


class AutocastLM(CausalLM):
    """A `CausalLM` whose every forward pass runs under autocast: matrix products in bfloat16, norms in float32.

    Layers are not replaced by faster ones, which would not see autocast. Logits come out in bfloat16, and losses are
    computed from them in float32, as trainers do.

    Args:
        model: as for `CausalLM`, with float32 weights.
        facts: as for `CausalLM`; `compute_dtype` is `AUTOCAST_DTYPE`.
        tokenizer: as for `CausalLM`.
    """

    def __init__(self, model: Any, facts: CheckpointFacts, tokenizer: Tokenizer) -> None:
        self._device_type = facts.device.partition(":")[0]
        super().__init__(model, facts, tokenizer)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return final hidden states [B, T, D] of int64 ids [B, T] (logits [B, T, V] when head is "full")."""
        with self._autocast():
            return super().hidden(ids)

    def hidden_left_padded(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return what `hidden` returns for rows that are padded on the left."""
        with self._autocast():
            return super().hidden_left_padded(ids, padding)

    def hidden_and_routing(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what `hidden` returns, and the sums of the routers."""
        with self._autocast():
            return super().hidden_and_routing(ids, lengths)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D], in bfloat16."""
        with self._autocast():
            return super().logits(hidden)

    def shared_prefix(self) -> None:
        """Return nothing: the start of pairs is not shared under autocast."""

    def _full(self, ids: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            return super()._full(ids)

    def _run_routed(self, ids: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        with self._autocast():
            return super()._run_routed(ids)

    def _speed_up(self, probe: torch.Tensor) -> str:  # noqa: ARG002 - nothing is tried out
        return self.facts.kernels

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device_type, torch.bfloat16)
