"""Open llama2.c's `.bin` files (legacy, version 1, and version 2 with int8 weights), run by transformers' Llama.

All numbers are little-endian. A file is a header of seven int32 (width, width of the feed-forward part, layers, heads,
heads of keys and values, size of the vocabulary, longest input), then the weights without names. The legacy form has
no magic number: that the header asks for exactly the bytes of the file is what shows that it is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lossprobe.checkpoint.families.llama2c_header import (
    HEADER_BYTES,
    MATRICES,
    Llama2cHeader,
    read_llama2c_header,
)
from lossprobe.checkpoint.files.hashes import combined_sha256, file_sha256
from lossprobe.checkpoint.files.plain_files import absolute, open_plain, stands, unreadable
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.files.tensors import check_finite, compute_dtype
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.model.causal_lm import CausalLM
from lossprobe.checkpoint.model.model_config import quiet_transformers
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.llama2c_tokenizer import read_tokenizer_bin
from lossprobe.units import format_count, visible

NORM_EPS, ROPE_THETA = 1e-5, 10000.0
WEIGHTS_ONLY = "int8 weights only: runq of llama2.c also rounds activations to int8, which is not done here"
PERMUTED = ("q_proj", "k_proj")


def load_llama2c(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the model of a `.bin` file of llama2.c, with the tokenizer.bin beside it or the one of `options`.

    Raises:
        CheckpointError: the header is impossible, the file has another size than it asks for, a weight is not finite,
            or the tokenizer is missing or has another number of tokens.
        UsageError: `options.dtype` is not one of the choices.
    """
    header, data = _read(path)
    norms, weights = _weights(header, data)
    del data
    dtype = compute_dtype("float32", options.dtype)
    check_finite(path, {**norms, **weights})
    tokenizer = _tokenizer(path, header, options)
    digest, words = file_sha256(path), getattr(tokenizer, "files", ())
    form = f"version {header.version}" if header.version else "legacy form"
    facts = CheckpointFacts(
        name=path.name,
        family="llama2.c",
        sha256=combined_sha256({path.name: digest}),
        vocab_size=header.vocab_size,
        context_length=header.max_seq_len,
        hard_limit=False,
        parameters=sum(tensor.numel() for tensor in (*norms.values(), *weights.values())),
        stored_dtype=f"int8 in groups of {header.group}" if header.group else "float32",
        compute_dtype=str(dtype).removeprefix("torch."),
        device=options.device,
        tied=header.shared,
        config_from=f"the file's header, {form}",
        notices=(*([WEIGHTS_ONLY] if header.group else []), *getattr(tokenizer, "notices", ())),
        files=absolute((path, *words)),
        hashes=((str(path.absolute()), digest),),
    )
    return CausalLM(_model(header, {**norms, **weights}, dtype, options.device), facts, tokenizer)


def _read(path: Path) -> tuple[Llama2cHeader, npt.NDArray[np.uint8]]:
    """Return the header and the bytes after it, which are as many as it asks for."""
    try:
        with open_plain(path) as stream:
            header = read_llama2c_header(path, stream.read(HEADER_BYTES))
            size = path.stat().st_size
            if size != header.file_size():
                wanted = format_count(header.file_size())
                what = f"{format_count(size)} bytes, a model of this header has {wanted}"
                if size < header.file_size():
                    raise refusal("checkpoint.truncated", path, what)
                raise refusal("checkpoint.trailing", path, what)
            stream.seek(header.start)
            data = np.fromfile(stream, np.uint8, size - header.start)
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None
    if len(data) != size - header.start:
        raise refusal("checkpoint.changed", path, "became shorter while it was read")
    return header, data


def _weights(
    header: Llama2cHeader, data: npt.NDArray[np.uint8]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the norms and the matrices as float32, by Llama's names; rows of queries and keys in Llama's order."""
    layers, dim = header.n_layers, header.dim
    take = _Taker(data, header.group)
    if header.version:
        attention, feed, final = take.floats(layers, dim), take.floats(layers, dim), take.floats(dim)
        matrices = {"embedding": take.matrices(1, header.shapes["embedding"])}
        matrices |= {name: take.matrices(layers, header.shapes[name]) for name in MATRICES}
    else:  # the norms stand before the matrices that they come before
        matrices = {"embedding": take.matrices(1, header.shapes["embedding"])}
        attention = take.floats(layers, dim)
        matrices |= {name: take.matrices(layers, header.shapes[name]) for name in MATRICES[:4]}
        feed = take.floats(layers, dim)
        matrices |= {name: take.matrices(layers, header.shapes[name]) for name in MATRICES[4:]}
        final = take.floats(dim)
        take.floats(2, header.max_seq_len, header.head_dim // 2)  # tables of the rotary positions
    norms, named = {"model.norm.weight": final}, {"model.embed_tokens.weight": matrices["embedding"][0]}
    for layer in range(layers):
        start = f"model.layers.{layer}"
        norms[f"{start}.input_layernorm.weight"] = attention[layer]
        norms[f"{start}.post_attention_layernorm.weight"] = feed[layer]
        for name in MATRICES:
            part = "mlp" if name in MATRICES[4:] else "self_attn"
            matrix = matrices[name][layer]
            named[f"{start}.{part}.{name}.weight"] = _halves(matrix, header.head_dim) if name in PERMUTED else matrix
    if not header.shared:
        named["lm_head.weight"] = take.matrices(1, header.shapes["embedding"])[0]
    return norms, named


def _halves(matrix: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return a matrix of queries or keys whose rows turn as halves of a head, where llama2.c turns neighbours.

    Row 2j + s of a head (s = 0 or 1) becomes row j + s · head_dim/2: transformers' Llama pairs j with j + head_dim/2.
    For a head of 4 rows a b c d the result is a c b d.
    """
    return matrix.reshape(-1, head_dim // 2, 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)


class _Taker:
    """Takes arrays from the front of the bytes of a file.

    Args:
        data: the bytes after the header.
        group: as in `Llama2cHeader`.
    """

    def __init__(self, data: npt.NDArray[np.uint8], group: int) -> None:
        self._data, self._group, self._place = data, group, 0

    def floats(self, *shape: int) -> torch.Tensor:
        """Return the next float32 numbers."""
        return torch.from_numpy(self._next(4 * int(np.prod(shape, dtype=np.int64))).view("<f4").reshape(shape))

    def matrices(self, count: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
        """Return the next matrices: float32, or int8 followed by one float32 scale for each group, multiplied."""
        return [self._matrix(shape) for _ in range(count)]

    def _matrix(self, shape: tuple[int, ...]) -> torch.Tensor:
        if not self._group:
            return self.floats(*shape)
        size = shape[0] * shape[1]
        values = torch.from_numpy(self._next(size).view(np.int8)).reshape(-1, self._group)
        return (values * self.floats(size // self._group, 1)).reshape(shape)

    def _next(self, size: int) -> npt.NDArray[np.uint8]:
        self._place += size
        piece = self._data[self._place - size : self._place]
        return piece if piece.ctypes.data % 4 == 0 else piece.copy()


def _model(
    header: Llama2cHeader, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, device: str
) -> torch.nn.Module:
    """Return transformers' Llama with these weights."""
    config = LlamaConfig(
        vocab_size=header.vocab_size,
        hidden_size=header.dim,
        intermediate_size=header.hidden_dim,
        num_hidden_layers=header.n_layers,
        num_attention_heads=header.n_heads,
        num_key_value_heads=header.n_kv_heads,
        max_position_embeddings=header.max_seq_len,
        rms_norm_eps=NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=header.shared,
    )
    model_class: Any = LlamaForCausalLM
    model: torch.nn.Module
    with quiet_transformers():
        model = model_class.from_pretrained(None, config=config, state_dict=dict(tensors), dtype=dtype)
    return model.to(device).eval().requires_grad_(False)


def _tokenizer(path: Path, header: Llama2cHeader, options: LoadOptions) -> Tokenizer:
    """Return the tokenizer that the user named, or else the tokenizer.bin beside the model."""
    usual = ("tokenizer.bin", f"tok{header.vocab_size}.bin")
    beside = next((path.parent / name for name in usual if stands(path.parent / name)), None)
    file = options.tokenizer or beside
    if file is None:
        hint = f"`tokenizer` with its {usual[0]} ({usual[1]}), or with a tokenizer.json of the same vocabulary"
        raise refusal("tokenizer.missing", path, f"no {' or '.join(usual)} beside it", hint)
    if file.is_dir() and stands(file / "tokenizer.bin"):
        file = file / "tokenizer.bin"
    if file.is_dir() or file.suffix == ".json":
        from lossprobe.checkpoint.tokenizers.tokenizer_readers import open_tokenizer

        tokenizer = open_tokenizer(file, options.special_strings)
        tokenizer.compare_with_auto_tokenizer()
        return tokenizer
    return read_tokenizer_bin(file, header.vocab_size)
