"""The checkpoint of a model whose layers are divided among processes, as one of them sees it."""

from __future__ import annotations

from typing import Any

import torch

from lossprobe.checkpoint.facts import DIVIDED
from lossprobe.checkpoint.interface import CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.division import Division, refuse_divided


class DividedLM(CausalLM):
    """A `CausalLM` of which this process holds slices.

    All processes must call it in the same order with the same inputs; `hidden` gives each the same hidden states.

    Args:
        model: as for `CausalLM`.
        facts: as for `CausalLM`; `kernels` says among how many processes it is divided.
        tokenizer: its tokenizer.
        division: which of the processes this is.

    Raises:
        CheckpointError: as for `CausalLM`; `checkpoint.not_divided`: its head cannot run on some rows alone.
    """

    def __init__(self, model: Any, facts: CheckpointFacts, tokenizer: Tokenizer, division: Division) -> None:
        self._processes = division.size
        super().__init__(model, facts, tokenizer)
        if self.facts.head == "full":
            refuse_divided(facts.name, "its head cannot be split off, so each process would hold all logits")

    def _speed_up(self, probe: torch.Tensor) -> str:
        """Leave all layers as they are, since the slices of a matrix are in code of transformers' own."""
        del probe
        return f"{DIVIDED} in {self._processes}"
