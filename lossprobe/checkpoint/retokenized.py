"""Use a checkpoint with another tokenizer than its own, such as the one that another program builds from its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossprobe.checkpoint.interface import Checkpoint, Routed, Tokenizer
from lossprobe.checkpoint.layer_by_layer import LayerByLayer, streamed_of

if TYPE_CHECKING:
    import torch


class RetokenizedCheckpoint:
    """A checkpoint whose texts are tokenized by another tokenizer.

    Args:
        checkpoint: the checkpoint with the model.
        tokenizer: the other tokenizer.

    Attributes:
        facts: description of `checkpoint`, unchanged.
        tokenizer: the other tokenizer.
        own_tokenizer: the tokenizer of `checkpoint`.
        model: `checkpoint`.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        self.model = checkpoint
        self.facts = checkpoint.facts
        self.tokenizer = tokenizer
        self.own_tokenizer = checkpoint.tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the model's hidden states [B, T, D] of int64 ids [B, T]."""
        return self.model.hidden(ids)

    def hidden_and_routing(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the model's hidden states and the sums of its routers; only where `facts.router` is set."""
        assert isinstance(self.model, Routed)
        return self.model.hidden_and_routing(ids, lengths)

    def streamed(self) -> LayerByLayer | None:
        """Return what runs the layers of the model one after the other; None where it is in memory."""
        return streamed_of(self.model)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the model's logits [N, V] of hidden rows [N, D]."""
        return self.model.logits(hidden)
