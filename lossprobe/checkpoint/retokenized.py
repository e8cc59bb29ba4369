"""A checkpoint with another tokenizer than its own: as another program reads the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lossprobe.checkpoint.interface import Checkpoint, Tokenizer

if TYPE_CHECKING:
    import torch


class RetokenizedCheckpoint:
    """A checkpoint whose texts are tokenized by another tokenizer.

    Args:
        checkpoint: the model.
        tokenizer: the other tokenizer.

    Attributes:
        facts: those of the model.
        tokenizer: the other one.
        own_tokenizer: the checkpoint's own.
    """

    def __init__(self, checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
        self._checkpoint = checkpoint
        self.facts = checkpoint.facts
        self.tokenizer = tokenizer
        self.own_tokenizer = checkpoint.tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the model's hidden states [B, T, D] of int64 ids [B, T]."""
        return self._checkpoint.hidden(ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the model's logits [N, V] of hidden rows [N, D]."""
        return self._checkpoint.logits(hidden)
