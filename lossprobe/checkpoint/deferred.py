"""A checkpoint of which is known what it is, and whose model is loaded only when something has to be computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer, Tokens
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenizerFacts:
    """What is known of a tokenizer without making it; names as in `Tokenizer`."""

    kind: str
    sha256: str
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerFacts:
        """Return those of a tokenizer."""
        return cls(tokenizer.kind, tokenizer.sha256, tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos)


class DeferredCheckpoint:
    """A checkpoint that is opened when it is first used for more than its facts.

    Args:
        facts: what opening it would say of it.
        tokenizer: what opening it would say of its tokenizer.
        load: opens it.

    Attributes:
        facts: as given, until it is open.
        tokenizer: has the facts that were given; anything else opens the checkpoint.
    """

    def __init__(self, facts: CheckpointFacts, tokenizer: TokenizerFacts, load: Callable[[], Checkpoint]) -> None:
        self.facts = facts
        self.tokenizer: Tokenizer = _DeferredTokenizer(tokenizer, self.opened)  # type: ignore[assignment]
        self._known = _deciding(facts, tokenizer)
        self._load = load
        self._checkpoint: Checkpoint | None = None

    def opened(self) -> Checkpoint:
        """Return the checkpoint, loaded.

        Raises:
            CheckpointError: it is another one than its facts said, by which runs were looked for.
            LossprobeError: as in `open_checkpoint`.
        """
        if self._checkpoint is None:
            checkpoint = self._load()
            if _deciding(checkpoint.facts, TokenizerFacts.of(checkpoint.tokenizer)) != self._known:
                shown = visible(self.facts.name, 80)
                what = f"{shown}: changed since it was last looked at, or while it was read"
                raise CheckpointError("checkpoint.changed", what, hint="repeat the command")
            self._checkpoint, self.facts, self.tokenizer = checkpoint, checkpoint.facts, checkpoint.tokenizer
        return self._checkpoint

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the model's hidden states [B, T, D] of int64 ids [B, T]."""
        return self.opened().hidden(ids)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the model's logits [N, V] of hidden rows [N, D]."""
        return self.opened().logits(hidden)


class _DeferredTokenizer:
    """A tokenizer of which is known what names a run; what it makes of a text needs the checkpoint."""

    def __init__(self, facts: TokenizerFacts, opened: Callable[[], Checkpoint]) -> None:
        self.kind, self.sha256 = facts.kind, facts.sha256
        self.bos_id, self.eos_id, self.adds_bos = facts.bos_id, facts.eos_id, facts.adds_bos
        self._opened = opened

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text of their own."""
        return self._opened().tokenizer.special_ids

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS."""
        return self._opened().tokenizer.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for."""
        return self._opened().tokenizer.token_bytes(token_id)


def opened(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint, loaded if that was put off."""
    return checkpoint.opened() if isinstance(checkpoint, DeferredCheckpoint) else checkpoint


def _deciding(facts: CheckpointFacts, tokenizer: TokenizerFacts) -> tuple[Any, ...]:
    """Return what names runs, decides windows and is said of them; device, head and kernels are measured anew."""
    plain = replace(facts, device="", head="", kernels="", config_from="", notices=(), files=(), hashes=())
    return plain, tokenizer
