"""Use a Python function from token ids to logits as a checkpoint, for models that lossprobe cannot open itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lossprobe.checkpoint.interface import BATCHINGS, PADDED, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.vector_math import settle_vector_math
from lossprobe.errors import CheckpointError


class CallableCheckpoint:
    """A `Checkpoint` that calls a Python function.

    Args:
        function: maps int64 ids [B, T] to logits [B, T, V]. It must be causal: logits depend on earlier ids only.
            Shorter rows are padded with id 0 on the right.
        tokenizer: any object with the attributes and methods of `Tokenizer`.
        vocab_size: V.
        context_length: most input tokens of one call, or None for no limit.
        name: a name for headings.
        sha256: hash that identifies the weights behind the function. With it, a stored run is reused or resumed;
            without it, every call of `score` scores the text again, because the function may have changed.
        device: the device on which the function expects its ids.
        batching: which windows may share a call without changing each other's logits: "padded" (any), "equal lengths"
            or "one window". This is not checked here; `selfcheck` shows whether it is true.

    Raises:
        ValueError: `batching` is none of these.
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
        settle_vector_math()
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
        """Return the function's logits [B, T, V], because a function cannot be split into body and head.

        Raises:
            CheckpointError: the function returned something other than a tensor of that shape.
        """
        logits: Any = self._function(ids)  # the annotation of a user's function may be wrong
        wanted = [*ids.shape, self.facts.vocab_size]
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if given != wanted:
            raise CheckpointError(
                "checkpoint.callable", f"{self.facts.name}: the function gave {given}, not logits {wanted}"
            )
        output: torch.Tensor = logits
        return output

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the rows unchanged: they are logits already."""
        return hidden
