"""Small checkpoints and tokenizers whose losses are known or seeded."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

from lossprobe.checkpoint.families.callable import CallableCheckpoint
from lossprobe.checkpoint.interface import Tokens

BOS = 256
VOCAB = 257


class ByteTokenizer:
    """A tokenizer with one id for each byte, and id 256 as BOS; `unknown_byte` is outside the vocabulary."""

    kind = "bytes"
    special_ids = frozenset({BOS})

    def __init__(self, *, adds_bos: bool = True, unknown_byte: int | None = None) -> None:
        self.bos_id: int | None = BOS
        self.eos_id: int | None = None
        self.adds_bos = adds_bos
        self.unknown_byte = unknown_byte
        self.sha256 = hashlib.sha256(f"bytes {adds_bos} {unknown_byte}".encode()).hexdigest()

    def encode(self, text: str) -> Tokens:
        ids = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
        stops = np.arange(1, len(ids) + 1)
        return Tokens(ids, stops, ids == (-1 if self.unknown_byte is None else self.unknown_byte))

    def token_bytes(self, token_id: int) -> bytes:
        return b"<bos>" if token_id == BOS else bytes([token_id])


def uniform_logits(ids: torch.Tensor) -> torch.Tensor:
    """Return logits of 0 for all 257 entries, so that every loss is log 257."""
    return torch.zeros((*ids.shape, VOCAB))


def successor_logits(ids: torch.Tensor) -> torch.Tensor:
    """Return logits of 5 for id + 1 and 0 for others: the loss is log(1 + 256 e^-5) if id + 1 follows, else 5 more."""
    logits = torch.zeros((*ids.shape, VOCAB))
    logits.scatter_(-1, ((ids + 1) % VOCAB)[..., None], 5.0)
    return logits


SUCCESSOR_RIGHT = math.log1p(256 * math.exp(-5.0))


class SmallModel(torch.nn.Module):
    """A seeded causal model whose logits depend on all tokens before, by the mean of their embeddings."""

    def __init__(self, seed: int = 0, width: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = torch.randn((VOCAB, width), generator=generator)
        self.mix = torch.randn((width, width), generator=generator) / 2
        self.head = torch.randn((width, VOCAB), generator=generator)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding[ids]
        count = torch.arange(1, ids.shape[1] + 1)[:, None]
        mean = embedded.cumsum(dim=1) / count
        return torch.tanh((embedded + mean) @ self.mix) @ self.head


def checkpoint(function=uniform_logits, *, context_length: int | None = 32, **choices) -> CallableCheckpoint:
    tokenizer = choices.pop("tokenizer", None) or ByteTokenizer()
    return CallableCheckpoint(
        function, tokenizer, vocab_size=VOCAB, context_length=context_length, **{"sha256": "fake", **choices}
    )
