"""Protocols and data that every checkpoint and tokenizer provides, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from lossprobe.checkpoint.facts import AdapterFacts, RouterFacts
    from lossprobe.checkpoint.templates.template import ChatTemplate

# Which windows may share a forward pass: all (shorter ones padded), those of equal length, or none; loosest first.
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
        normalized_bytes: number of bytes that the tokenizer dropped or rewrote, so that ids cannot restore them.
        tiles: False when spans had to be guessed, because the tokenizer's own offsets run backwards or do not lie where
            the bytes of its tokens are; bits per byte is then refused.
        vanished_bytes: number of those `normalized_bytes` that the vocabulary has no token for and that were dropped;
            if it is not 0, no number per byte or per word is meaningful.
        special_strings: number of tokens that are control ids because the text holds their name.
        in_pieces: whether a long document was tokenized in pieces by a tokenizer with a rule that can depend on text
            outside a piece, so that tokens may differ from those of the document tokenized at once.
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
        kind: description for people: "byte-level BPE", "characters", ...
        sha256: hash of everything that decides its output.
        bos_id: the beginning-of-sequence id, or None when it has none.
        eos_id: the end-of-sequence id, or None when it has none.
        adds_bos: whether it puts a BOS before a text by itself (`bos` "auto" follows it).
        special_ids: ids of special tokens, which do not stand for text.
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
        """Return the bytes that an id stands for in running text (for a special id its name), or b"" for none."""
        ...


@runtime_checkable
class ChatTokenizer(Protocol):
    """A tokenizer whose files may hold a chat template.

    Attributes:
        chat_template: the template, or None where the files hold none.
    """

    chat_template: ChatTemplate | None


@runtime_checkable
class MultiReaderTokenizer(Protocol):
    """A tokenizer whose files other programs read in their own ways, possibly with other tokens.

    Attributes:
        canonical: its definition as bytes; tokenizers with the same definition give the same tokens.
    """

    canonical: bytes

    def read_by(self, reader: str) -> Tokenizer:
        """Return the tokenizer that another program builds from the same files.

        Args:
            reader: name of the program, as in `plan.protocols.Protocol.reader`.

        Raises:
            CheckpointError: the program cannot read the files.
        """
        ...


class Checkpoint(Protocol):
    """A causal language model, split into body and head so that the head can run on chunks of rows.

    Attributes:
        facts: description of the checkpoint; stored in every run.
        tokenizer: its tokenizer.
    """

    facts: CheckpointFacts
    tokenizer: Tokenizer

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states [B, T, D] of int64 ids [B, T], on the model's device.

        Shorter rows are padded on the right, without a mask: in a causal model padding does not affect earlier tokens.
        """
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D], as the model's own forward pass computes them."""
        ...


class SharedPrefix(Protocol):
    """Runs inputs that start alike after one pass of their common start."""

    def run(self, ids: torch.Tensor) -> Any:
        """Return what the model keeps of some starts, int64 ids [B, P]."""
        ...

    def hidden_after(self, prefix: Any, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states [R, T, D] of the rest of some inputs.

        Args:
            prefix: what `run` returned for their starts; it stays as it is.
            rows: int64 [R], which of the starts each input has.
            ids: int64 [R, T], what follows the start, padded on the right.
        """
        ...


@runtime_checkable
class PrefixCheckpoint(Protocol):
    """A checkpoint that may be able to run inputs after their common start."""

    def shared_prefix(self) -> SharedPrefix | None:
        """Return what runs them; None where results would differ by more than rounding."""
        ...


def prefix_of(checkpoint: Checkpoint) -> SharedPrefix | None:
    """Return what runs inputs of a checkpoint after their common start; None where it cannot."""
    return checkpoint.shared_prefix() if isinstance(checkpoint, PrefixCheckpoint) else None


@runtime_checkable
class CopiedTokenizer(Protocol):
    """A tokenizer in a process of its own: several can work at once, and each takes several documents together."""

    def copies(self) -> Sequence[Tokenizer]:
        """Return more of the same, which start when they are used; none where they would not be faster."""
        ...

    def encode_all(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of several documents, each as by `Tokenizer.encode`."""
        ...


@runtime_checkable
class PiecewiseTokenizer(Protocol):
    """A tokenizer that tokenizes long documents in overlapping pieces, to bound the memory.

    Attributes:
        longest_whole_bytes: length in bytes of the longest document that is tokenized at once.
        unbounded_rules: types of its components that can depend on text outside a piece, so that pieces may give other
            tokens; empty for most tokenizers.
    """

    longest_whole_bytes: int
    unbounded_rules: tuple[str, ...]

    def encode(self, text: str) -> Tokens:
        """Return the tokens of one document, as `Tokenizer.encode` does."""
        ...

    def encode_whole(self, text: str) -> Tokens:
        """Return the tokens of one document, never in pieces; this can take 300 bytes of memory per byte of text."""
        ...


@runtime_checkable
class LeftPadding(Protocol):
    """A checkpoint that also accepts rows that are padded on the left, as some other tools pad them."""

    def hidden_left_padded(self, ids: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Return the final hidden states [B, T, D] of rows that are padded on the left.

        Padding is masked, and positions count from the first token after it.

        Args:
            ids: int64 [B, T].
            padding: int64 [B], number of padding tokens at the start of each row.
        """
        ...


@runtime_checkable
class Routed(Protocol):
    """A mixture of experts whose routers can be summed."""

    def hidden_and_routing(
        self, ids: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the final hidden states [B, T, D] and the sums of each row's routers.

        Args:
            ids: int64 [B, T].
            lengths: int64 [B], tokens of each row; what comes after them is padding, which is left out of the sums.

        Returns:
            [B, T, D]; float64 [B, L, E], sums of the probabilities of E experts in L routers; int64 [B, L, E], number
            of tokens for which each expert was chosen.
        """
        ...


@dataclass(frozen=True)
class CheckpointFacts:
    """Description of a checkpoint; stored in `run.json` and printed by `inspect`.

    Attributes:
        name: last part of its path, for headings.
        family: "llama", "gpt2", "nanogpt", "fundamentallm", "callable", ...
        sha256: hash over the names and contents of every file that decides its output.
        vocab_size: number of logits per token (padding rows of the head included).
        context_length: most input tokens of one forward pass, or None when the model states no limit.
        hard_limit: whether a longer input fails (learned positions); otherwise it only exceeds what was trained.
        parameters: number of weights, a tied head counted once; None when unknown.
        stored_dtype: dtype of the stored weights, such as "float16", or "int4 (GPTQ)" where a quantiser wrote them.
        quantization: how quantised weights are stored, in plain words; None for plain ones. "weights only" in it says
            that the deployed kernel also rounds activations, which is not in the losses.
        compute_dtype: dtype of the forward pass.
        device: "cpu", "cuda:0", ...
        tied: whether head and embedding share their weights; None when unknown.
        head: how the head is computed: "linear" (one matrix), "model" (the model's own code for scaled or soft-capped
            logits, on chunks of rows), "streamed" (another program sends chunks of rows), or "full" (not separable).
        kernels: "plain", or the parts that run with packed weights and fused activations, such as "packed body and
            head", see `model.packed`, or whose weights in half precision are widened where the processor has no
            products for them, see `model.widened`; then "attention in blocks" where compiled loops compute attention,
            see `model.attention`. All of it changes losses by rounding alone.
        batching: which windows may share a forward pass without changing each other's losses: "padded" (any, the
            shorter ones padded), "equal lengths" or "one window".
        router: its routers; None for a model without a load-balancing loss.
        adapter: what an adapter is, and on which base; None for a whole model.
        config_from: file or key from which the configuration was read.
        notices: what a user should know about it, one line each.
        files: absolute paths of all files that it was read from, its tokenizer's too; no result is written over them.
        hashes: (path, sha256) of some of these files, always of the weights, computed when they were read.
    """

    name: str
    family: str
    sha256: str
    vocab_size: int
    context_length: int | None
    hard_limit: bool = True
    parameters: int | None = None
    stored_dtype: str = "float32"
    quantization: str | None = None
    compute_dtype: str = "float32"
    device: str = "cpu"
    tied: bool | None = None
    head: str = "linear"
    kernels: str = "plain"
    batching: str = PADDED
    router: RouterFacts | None = None
    adapter: AdapterFacts | None = None
    config_from: str = ""
    notices: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    hashes: tuple[tuple[str, str], ...] = ()
