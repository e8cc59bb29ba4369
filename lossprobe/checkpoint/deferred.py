"""A checkpoint whose facts are known from an earlier use, and whose model is loaded only when it must compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lossprobe.checkpoint.interface import ChatTokenizer, Checkpoint, CheckpointFacts, Tokenizer, Tokens
from lossprobe.checkpoint.templates.template import ChatTemplate
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TokenizerFacts:
    """The facts of a tokenizer that are stored, so that it need not be built; names as in `Tokenizer`."""

    kind: str
    sha256: str
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool
    chat_template: ChatTemplate | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TokenizerFacts:
        """Return the facts of a tokenizer."""
        template = tokenizer.chat_template if isinstance(tokenizer, ChatTokenizer) else None
        return cls(tokenizer.kind, tokenizer.sha256, tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos, template)


class DeferredCheckpoint:
    """A checkpoint that is loaded when more than its facts is needed for the first time.

    Args:
        facts: the facts that it had when it was last loaded.
        tokenizer: the facts that its tokenizer had then.
        load: loads the checkpoint.

    Attributes:
        facts: as given, until the checkpoint is loaded.
        tokenizer: has the given facts; using anything else of it loads the checkpoint.
    """

    def __init__(self, facts: CheckpointFacts, tokenizer: TokenizerFacts, load: Callable[[], Checkpoint]) -> None:
        self.facts = facts
        self.tokenizer: Tokenizer = _DeferredTokenizer(tokenizer, self.opened)  # type: ignore[assignment]
        self._known = _deciding(facts, tokenizer)
        self._load = load
        self._checkpoint: Checkpoint | None = None

    def opened(self) -> Checkpoint:
        """Return the checkpoint, loading it at the first call.

        Raises:
            CheckpointError: `checkpoint.changed`: its facts differ from the given ones, by which runs were searched.
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
    """A tokenizer that has the facts which identify a run, and loads the checkpoint for everything else."""

    def __init__(self, facts: TokenizerFacts, opened: Callable[[], Checkpoint]) -> None:
        self.kind, self.sha256 = facts.kind, facts.sha256
        self.bos_id, self.eos_id, self.adds_bos = facts.bos_id, facts.eos_id, facts.adds_bos
        self.chat_template = facts.chat_template
        self._opened = opened

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, which do not stand for text."""
        return self._opened().tokenizer.special_ids

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS."""
        return self._opened().tokenizer.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for."""
        return self._opened().tokenizer.token_bytes(token_id)


def opened(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint itself, or for a deferred one the loaded checkpoint."""
    return checkpoint.opened() if isinstance(checkpoint, DeferredCheckpoint) else checkpoint


def _deciding(facts: CheckpointFacts, tokenizer: TokenizerFacts) -> tuple[Any, ...]:
    """Return the facts that identify runs and decide windows; device, head and kernels are measured at each load."""
    plain = replace(facts, device="", head="", kernels="", config_from="", notices=(), files=(), hashes=())
    return plain, tokenizer
