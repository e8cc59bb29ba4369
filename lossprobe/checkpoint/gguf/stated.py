"""Compare what the keys of a GGUF file say of its layers and its vocabulary with the tensors that the file holds."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.gguf.header import GGUFHeader
from lossprobe.units import format_count, visible

TOKENS, EMBEDDING, ID_END = "tokenizer.ggml.tokens", "token_embd.weight", "_token_id"


def refuse_contradictions(headers: Sequence[GGUFHeader]) -> None:
    """Refuse counts that the tensors contradict; llama.cpp fails on these with words that do not name the cause.

    Args:
        headers: of all parts of a model.

    Raises:
        CheckpointError: there are more layers than tensors, or another number of tokens than rows of the embedding.
    """
    first = headers[0]
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    key = f"{first.text('general.architecture')}.block_count"
    layers = first.keys.get(key)
    if type(layers) is int and layers > len(tensors):
        what = f"{visible(key, 80)} is {format_count(layers)}, and there are {format_count(len(tensors))} tensors"
        raise refusal("checkpoint.bad_header", first.path, what)
    tokens, embedding = first.keys.get(TOKENS), tensors.get(EMBEDDING)
    if isinstance(tokens, list) and embedding is not None and len(tokens) != embedding.shape[0]:
        rows = f"{EMBEDDING} has {format_count(embedding.shape[0])} rows"
        what = f"{TOKENS} has {format_count(len(tokens))} entries, and {rows}"
        raise refusal("checkpoint.wrong_shape", first.path, what)


def impossible_ids(header: GGUFHeader) -> tuple[str, ...]:
    """Return a notice for each special token whose id the vocabulary does not have.

    llama.cpp puts the usual id of the kind of tokenizer in its place, without an error: BOS 1 for sentencepiece.
    """
    tokens = header.keys.get(TOKENS)
    count = len(tokens) if isinstance(tokens, list) else 0
    wrong = {
        key: value
        for key, value in header.keys.items()
        if key.startswith("tokenizer.") and key.endswith(ID_END) and type(value) is int and not 0 <= value < count
    }
    there = f"the vocabulary has {format_count(count)} entries, and llama.cpp takes the default of its kind"
    return tuple(f"{visible(key, 80)} is {format_count(value)}: {there}" for key, value in wrong.items() if count)
