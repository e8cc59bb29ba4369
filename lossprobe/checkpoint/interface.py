"""What lossprobe needs of a model and of a tokenizer, whatever family they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# Which windows may share a forward pass, from the freest on.
PADDED, EQUAL_LENGTHS, ONE_WINDOW = BATCHINGS = ("padded", "equal lengths", "one window")


@dataclass(frozen=True)
class Tokens:
    """One tokenized document.

    Attributes:
        ids: int32 [N], token ids, without any BOS.
        byte_stop: int64 [N], end of each token's span in the document's UTF-8 bytes, never decreasing.
            Token i covers bytes `byte_stop[i - 1]` (0 for the first) to `byte_stop[i]`, so the spans tile
            the document: the last entry is the document's length.
        unknown: bool [N], True where the text was not in the vocabulary and the id stands for "unknown".
        normalized_bytes: bytes that the tokenizer dropped or rewrote, so that ids alone cannot restore them.
        tiles: False when the spans had to be guessed, because the tokenizer's own offsets run backwards, or do not
            lie where the bytes of its tokens are; bits per byte is then refused.
        vanished_bytes: those of `normalized_bytes` that the vocabulary cannot spell, and that got no token at all:
            no number per byte or per word means anything then.
        special_strings: tokens that are control ids because the text holds their name.
        in_pieces: whether a long document was tokenized in pieces by a tokenizer that can look farther than a piece,
            so that its tokens may be others than those of the whole.
    """

    ids: npt.NDArray[np.int32]
    byte_stop: npt.NDArray[np.int64]
    unknown: npt.NDArray[np.bool_]
    normalized_bytes: int = 0
    tiles: bool = True
    vanished_bytes: int = 0
    special_strings: int = 0
    in_pieces: bool = False


class Tokenizer(Protocol):
    """Turns a document into token ids and the bytes that each id covers.

    Attributes:
        kind: what it is, for people: "byte-level BPE", "characters", ...
        sha256: hash of everything that decides its output.
        bos_id: the beginning-of-sequence id, or None when it has none.
        eos_id: the end-of-sequence id, or None when it has none.
        adds_bos: whether it puts a BOS before a text by itself (`bos` "auto" follows it).
        special_ids: ids that stand for no text of their own.
    """

    kind: str
    sha256: str
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool
    special_ids: frozenset[int]

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, without BOS.

        Raises:
            CheckpointError: the tokenizer failed on this text.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that an id stands for in running text; the name of a special id; b"" for none."""
        ...


@runtime_checkable
class MultiReaderTokenizer(Protocol):
    """A tokenizer whose files other programs read by rules of their own.

    Attributes:
        canonical: what is run, as bytes: two that are equal give the same tokens.
    """

    canonical: bytes

    def read_by(self, reader: str) -> Tokenizer:
        """Return the tokenizer that another program makes of the files; `Protocol.reader` names it.

        Raises:
            CheckpointError: the program cannot read them.
        """
        ...


class Checkpoint(Protocol):
    """A causal language model, split into body and head so that the head can run on chunks of rows.

    Attributes:
        facts: what the checkpoint is; stored in every run.
        tokenizer: its tokenizer.
    """

    facts: CheckpointFacts
    tokenizer: Tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states [B, T, D] of int64 ids [B, T], on the model's device.

        Rows are right-padded; a causal model never lets padding reach an earlier position.
        """
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D]: exactly what the model's own forward gives."""
        ...


@runtime_checkable
class PiecewiseTokenizer(Protocol):
    """A tokenizer that takes a long document in pieces.

    Attributes:
        longest_whole_bytes: bytes of the longest document that it takes whole.
        unbounded_rules: what in it can look farther than a piece, so that pieces may have other tokens; empty for most.
    """

    longest_whole_bytes: int
    unbounded_rules: tuple[str, ...]

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, as `Tokenizer.encode` does."""
        ...

    def encode_whole(self, text: str) -> Tokens:
        """Return what `encode` returns, of the document as a whole, which may take 300 bytes of memory for each."""
        ...


@runtime_checkable
class LeftPadding(Protocol):
    """A checkpoint whose model can also be given rows that are padded on the left, as other tools do."""

    def hidden_left_padded(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return what `hidden` returns for int64 ids [B, T] whose first `padding` (int64 [B]) tokens are padding.

        Padding is masked, and positions count from the first token that is none.
        """
        ...


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint is; stored in `run.json`, printed by `inspect`.

    Attributes:
        name: last part of its path, for headings.
        family: "llama", "gpt2", "nanogpt", "fundamentallm", "callable", ...
        sha256: hash over the names and contents of every file that decides its output.
        vocab_size: width of the logits (padding rows included).
        context_length: most input tokens of one forward pass, or None when the model sets no limit.
        hard_limit: whether a longer input fails (learned positions), and does not just run past what was trained.
        parameters: number of weights, a tied head counted once; None when unknown.
        stored_dtype: dtype of the stored weights, such as "float16".
        compute_dtype: dtype of the forward pass.
        device: "cpu", "cuda:0", ...
        tied: whether head and embedding share their weights; None when unknown.
        head: how the head is computed: "linear" (one matrix), "model" (the model's own code for scaled or
            soft-capped logits, on chunks of rows), or "full" (body and head could not be told apart).
        kernels: "plain", or what runs with packed weights and fused activations, such as "packed body and head"; see
            `checkpoint.packed`. It moves losses by float32 rounding.
        batching: which windows may share a forward pass without changing each other's losses: "padded" (any, the
            shorter ones padded), "equal lengths" or "one window".
        config_from: file or key the configuration was read from.
        notices: what a user should know about it, one line each.
        files: absolute paths of every file that it was read from, its tokenizer's too; no result is written over one.
        hashes: the sha256 of some of these files, those of the weights among them, as they were when they were read.
    """

    name: str
    family: str
    sha256: str
    vocab_size: int
    context_length: int | None
    hard_limit: bool = True
    parameters: int | None = None
    stored_dtype: str = "float32"
    compute_dtype: str = "float32"
    device: str = "cpu"
    tied: bool | None = None
    head: str = "linear"
    kernels: str = "plain"
    batching: str = PADDED
    config_from: str = ""
    notices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
