"""Any function from ids to logits as a checkpoint: the way in for models that lossprobe does not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lossprobe.checkpoint.interface import BATCHINGS, PADDED, CheckpointFacts, Tokenizer
from lossprobe.errors import CheckpointError


class CallableCheckpoint:
    """A `Checkpoint` over a Python function.

    Args:
        function: int64 ids [B, T] → logits [B, T, V], causal; rows are right-padded with id 0.
        tokenizer: any object with the attributes and methods of `Tokenizer`.
        vocab_size: V.
        context_length: most input tokens of one call, or None for no limit.
        name: a name for headings.
        sha256: identifies the weights behind the function. With it a stored run is reused and resumed; without
            it every call of `score` scores anew, since a function can change without notice.
        device: where the ids are to be.
        batching: which windows may share a call without changing each other's logits: "padded" (any), "equal lengths"
            or "one window". The function is taken at its word; `selfcheck` shows whether it holds.

    Raises:
        ValueError: another batching.
    """

    def __init__(  # noqa: PLR0913 - keyword-only facts of a model
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        tokenizer: Tokenizer,
        *,
        vocab_size: int,
        context_length: int | None = None,
        name: str = "callable",
        sha256: str = "",
        device: str = "cpu",
        batching: str = PADDED,
    ) -> None:
        if batching not in BATCHINGS:
            raise ValueError(f"batching must be one of {', '.join(BATCHINGS)}, not {batching!r}")
        self._function = function
        self.tokenizer = tokenizer
        self.facts = CheckpointFacts(
            name=name,
            family="callable",
            sha256=sha256,
            vocab_size=vocab_size,
            context_length=context_length,
            device=device,
            head="full",
            batching=batching,
            config_from="Python",
        )

    @torch.inference_mode()
    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the function's logits [B, T, V]: it cannot be split into body and head.

        Raises:
            CheckpointError: the function gave something else.
        """
        logits: Any = self._function(ids)  # what a user's function really gives is not up to its annotation
        wanted = [*ids.shape, self.facts.vocab_size]
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if given != wanted:
            raise CheckpointError(
                "checkpoint.callable", f"{self.facts.name}: the function gave {given}, not logits {wanted}"
            )
        output: torch.Tensor = logits
        return output

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the rows themselves."""
        return hidden
