"""A checkpoint trained with label smoothing, with its predictions de-smoothed: a checkpoint of its own.

For a true distribution p over K entries, training with smoothing ε has its optimum at q = (1 − ε) p + ε/K. Taking the
uniform part off again and normalising,

    p̂ ∝ max(q − ε/K, δ q)

gives p back where the model reached that optimum. It did not reach it for rare entries, whose q can lie below ε/K;
these keep the share δ of their probability, so that no loss becomes infinite. The order of the entries stays: ranks
and accuracy do not change. A temperature cannot do the same: it stretches the tail that smoothing has lifted.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.interface import Checkpoint

KEPT_SHARE = 0.1  # δ


class DesmoothedCheckpoint:
    """A checkpoint whose logits are those of the de-smoothed distribution.

    Args:
        checkpoint: the model that was trained with label smoothing in the torch convention (ε/K on every entry).
        epsilon: the ε to take off, 0 ≤ ε < 1.

    Attributes:
        facts: those of the model, with a name and a sha256 that say what was taken off.
        tokenizer: the model's.

    For q = (.025, .925, .025, .025) and ε = .1 the de-smoothed distribution is (.0025, .9, .0025, .0025) / .9075.
    """

    def __init__(self, checkpoint: Checkpoint, epsilon: float) -> None:
        if not 0.0 <= epsilon < 1.0:
            raise ValueError(f"epsilon must lie in [0, 1), not {epsilon}")
        self._checkpoint = checkpoint
        self._epsilon = epsilon
        inner = checkpoint.facts
        # Without an identity of its own the model has none de-smoothed either, and is always scored anew.
        sha256 = inner.sha256 and combined_sha256({"model": inner.sha256, "desmooth": f"{epsilon!r} {KEPT_SHARE!r}"})
        self.facts = replace(inner, name=f"{inner.name} de-smoothed {epsilon:g}", sha256=sha256)
        self.tokenizer = checkpoint.tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the model's hidden states [B, T, D] of int64 ids [B, T]."""
        return self._checkpoint.hidden(ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 log p̂ [N, V] of hidden rows [N, D], up to a constant for each row."""
        z = self._checkpoint.logits(hidden).float()
        uniform_per_q = torch.exp(z.logsumexp(dim=-1, keepdim=True) - z).mul_(self._epsilon / z.shape[-1])
        return uniform_per_q.neg_().add_(1.0).clamp_(min=KEPT_SHARE).log_().add_(z)
