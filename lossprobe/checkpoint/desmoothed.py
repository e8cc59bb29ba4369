"""Remove label smoothing from the predictions of a checkpoint that was trained with it.

Training with label smoothing ε (Szegedy et al. 2016) on a true distribution p over K entries has its optimum at

    q = (1 − ε) p + ε/K

Subtracting the uniform part ε/K from the predictions q and normalising gives p back where the model reached it:

    p̂ ∝ max(q − ε/K, δ q)

For rare entries the model may not have reached it, and q can be below ε/K. They keep the share δ of their probability,
so that no loss becomes infinite. The order of the entries stays the same, and so do ranks and accuracy. A temperature
cannot do this: it rescales all log-probabilities, also those of the tail that smoothing has raised.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.interface import Checkpoint, SharedPrefix, prefix_of
from lossprobe.checkpoint.layer_by_layer import LayerByLayer, streamed_of

KEPT_SHARE = 0.1  # δ


class DesmoothedCheckpoint:
    """A checkpoint whose logits are those of another checkpoint with label smoothing removed.

    Args:
        checkpoint: the checkpoint that was trained with label smoothing in torch's convention (ε/K on every entry).
        epsilon: the ε to remove, 0 ≤ ε < 1.

    Attributes:
        facts: description of `checkpoint`, with a name and a sha256 that include ε.
        tokenizer: the tokenizer of `checkpoint`.

    Raises:
        ValueError: `epsilon` is out of range.

    For q = (.025, .925, .025, .025) and ε = .1 the de-smoothed distribution is (.0025, .9, .0025, .0025) / .9075.
    """

    def __init__(self, checkpoint: Checkpoint, epsilon: float) -> None:
        if not 0.0 <= epsilon < 1.0:
            raise ValueError(f"epsilon must lie in [0, 1), not {epsilon}")
        self._checkpoint = checkpoint
        self._epsilon = epsilon
        inner = checkpoint.facts
        # A checkpoint without a sha256 (a Python function) stays without one, so that it is always scored again.
        sha256 = inner.sha256 and combined_sha256({"model": inner.sha256, "desmooth": f"{epsilon!r} {KEPT_SHARE!r}"})
        self.facts = replace(inner, name=f"{inner.name} de-smoothed {epsilon:g}", sha256=sha256, router=None)
        self.tokenizer = checkpoint.tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the model's hidden states [B, T, D] of int64 ids [B, T]."""
        return self._checkpoint.hidden(ids)

    def shared_prefix(self) -> SharedPrefix | None:
        """Return what runs inputs of the model after their common start; None where it cannot."""
        return prefix_of(self._checkpoint)

    def streamed(self) -> LayerByLayer | None:
        """Return what runs the layers of the model one after the other; None where it is in memory."""
        return streamed_of(self._checkpoint)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return float32 log p̂ [N, V] of hidden rows [N, D], up to a constant per row."""
        z = self._checkpoint.logits(hidden).float()
        uniform_per_q = torch.exp(z.logsumexp(dim=-1, keepdim=True) - z).mul_(self._epsilon / z.shape[-1])
        return uniform_per_q.neg_().add_(1.0).clamp_(min=KEPT_SHARE).log_().add_(z)
