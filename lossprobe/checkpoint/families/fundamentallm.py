"""Open FundamentaLLM checkpoints: a character-level decoder whose configuration is in the `.pt` file or beside it."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from lossprobe.checkpoint.files.constants import Constants
from lossprobe.checkpoint.files.hashes import combined_sha256
from lossprobe.checkpoint.files.key_filter import KeyFilter
from lossprobe.checkpoint.files.plain_files import absolute, followed_links, stands
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.files.tensor_names import PlainNames, fitted_names, plain_names
from lossprobe.checkpoint.files.tensors import check_finite, check_tensors
from lossprobe.checkpoint.files.torch_file import TorchFile, dtypes, tensors_in
from lossprobe.checkpoint.files.yaml_file import read_yaml
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, Tokenizer
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.characters import (
    CharacterTokenizer,
    check_vocab_size,
    read_fundamentallm_tokenizer,
)
from lossprobe.units import visible

NORM_EPS = 1e-6  # fixed by the original program and not stored, as are the erf GELU and the biases
MAX_LAYERS = 48
MAX_SIZE = 1 << 24  # largest other number; the exact check is the one against the stored shapes
MAX_SCORES = 1 << 24  # attention scores in memory at once: 64 MiB in float32
ALIASES: Final = {"hidden_dim": "d_model", "model_dim": "d_model", "max_seq_len": "sequence_length"}
ENDS: Final = frozenset({"token_embedding.weight", "output_proj.weight"})
POSITIONS: Final = {"learned": "positional_encoding.embeddings.weight", "sinusoidal": "positional_encoding.pe"}


def is_fundamentallm(content: Mapping[str, object]) -> bool:
    """Return whether the content of a torch file is a FundamentaLLM checkpoint."""
    return "model_state" in content


def load_fundamentallm(file: TorchFile, options: LoadOptions) -> Checkpoint:
    """Return the model and tokenizer of a FundamentaLLM checkpoint.

    Args:
        file: the content of the `.pt` file.
        options: device ("auto" already resolved), dtype, and the tokenizer's path if it is not beside the file.

    Raises:
        CheckpointError: the configuration or the tokenizer is missing (a training run writes them last) or contradicts
            the stored tensors; or a tensor is missing, unexpected, of the wrong shape, or not finite.
    """
    source = _find_config(file)
    ignored = KeyFilter(options.ignore_config, source.name)
    config = _parse_config(file.path, replace(source, stated=ignored.removed_from(source.stated)))
    names, tensors = _stored_tensors(file)
    check_tensors(file.path, tensors, _expected_shapes(config))
    check_finite(file.path, tensors)
    tokenizer = _open_tokenizer(file.path, options.tokenizer)
    check_vocab_size(file.path, tokenizer, config.vocab_size)
    stored, dtype = dtypes(tensors, options.dtype)
    tied = torch.equal(tensors["token_embedding.weight"], tensors["output_proj.weight"])
    heads = () if tied else ("output_proj.weight differs from token_embedding.weight; the stored head is used",)
    beside = (*source.files, *(tokenizer.files if options.tokenizer is None else ()))
    uncounted = {POSITIONS["sinusoidal"]} | ({"output_proj.weight"} if tied else set())
    facts = CheckpointFacts(
        name=file.path.name,
        family="fundamentallm",
        sha256=combined_sha256({file.path.name: file.sha256, **source.hashes}),
        vocab_size=config.vocab_size,
        context_length=config.sequence_length,
        parameters=sum(tensor.numel() for name, tensor in tensors.items() if name not in uncounted),
        stored_dtype=str(stored).removeprefix("torch."),
        compute_dtype=str(dtype).removeprefix("torch."),
        device=options.device,
        tied=tied,
        config_from=ignored.source,
        notices=(*file.notices, *names.notices(), *ignored.notices, *heads, *followed_links(beside)),
        files=absolute((file.path, *source.files, *tokenizer.files)),
        hashes=((str(file.path.absolute()), file.sha256),),
    )
    state = {name: tensor.detach().to(options.device, dtype) for name, tensor in tensors.items()}
    if tied:
        state["output_proj.weight"] = state["token_embedding.weight"]
    state["positions"] = state.pop(POSITIONS[config.pos_encoding])
    with torch.device("meta"):  # allocates no memory: the stored tensors become the parameters below
        model = FundamentaLLM(config, facts, tokenizer)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class _Config:
    """The keys of a configuration; `num_heads` has no default, since no tensor shape would show a wrong head count."""

    vocab_size: int
    num_heads: int
    d_model: int = 128
    num_layers: int = 6
    sequence_length: int = 256
    ffn_expansion: int = 4
    pos_encoding: str = "learned"
    dropout: float = 0.0


@dataclass(frozen=True)
class _Source:
    name: str  # the key or file that holds the configuration
    stated: dict[object, object]
    hashes: dict[str, str]  # of the file, when it is one
    files: tuple[Path, ...] = ()


def _find_config(file: TorchFile) -> _Source:
    """Return the configuration from the first place that has one, searched in the original program's order."""
    for key in ("config", "model_config"):
        stated = file.content.get(key)
        if isinstance(stated, dict):
            return _Source(key, stated, {})
        if stated is not None:
            raise refusal("checkpoint.bad_config", file.path, f"{key} is {type(stated).__name__}, not a dict")
    names = [f"{file.path.stem}.yaml", f"{file.path.stem}.yml", "config.yaml", "model.yaml"]
    for name in names:
        if stands(file.path.parent / name):
            path = file.path.parent / name
            stated, digest = read_yaml(path)
            return _Source(name, stated, {name: digest}, (path,))
    what = f"training not finished? model.yaml missing (nor {', '.join(names[:-1])}, nor model_config in the file)"
    raise refusal("checkpoint.no_config", file.path, what, "the end of a training run writes it next to the checkpoint")


def _stored_tensors(file: TorchFile) -> tuple[PlainNames, dict[str, torch.Tensor]]:
    """Return the tensor names without wrappers' parts, and the tensors by these names, causal masks left out."""
    stored = tensors_in(file, "model_state")
    names = fitted_names(plain_names(file.path, stored), ENDS)
    tensors = {names.plain[name]: tensor for name, tensor in stored.items()}
    return names, {name: each for name, each in tensors.items() if not Constants().holds(name, each)}


def _parse_config(path: Path, source: _Source) -> _Config:
    """Return the checked configuration, refusing bools in place of numbers and one value under two names."""
    values: dict[str, Any] = {}
    for key, value in source.stated.items():
        name = ALIASES.get(key, key) if isinstance(key, str) else ""
        if name in values or name not in {field.name for field in fields(_Config)}:
            problem = f"gives {name} twice" if name in values else f"has the unknown key {visible(str(key)[:40])}"
            raise refusal("checkpoint.bad_config", path, f"{source.name} {problem}")
        limit = MAX_LAYERS if name == "num_layers" else MAX_SIZE
        if name not in {"pos_encoding", "dropout"} and (type(value) is not int or not 1 <= value <= limit):
            what = f"{source.name}: {name} is {_short(value)}, not a whole number from 1 to {limit}"
            raise refusal("checkpoint.bad_config", path, what)
        values[name] = value
    lacking = sorted({"vocab_size", "num_heads"} - values.keys())
    if lacking:
        raise refusal("checkpoint.bad_config", path, f"{source.name} lacks {lacking[0]}")
    config = _Config(**values)
    if config.pos_encoding == "rope":
        what = f"{source.name}: pos_encoding is rope, which the original program refuses to build; no such model exists"
        raise refusal("checkpoint.rope", path, what)
    if config.pos_encoding not in list(POSITIONS):
        what = f"{source.name}: pos_encoding is {_short(config.pos_encoding)}, not learned or sinusoidal"
        raise refusal("checkpoint.bad_config", path, what)
    if config.d_model % config.num_heads:
        what = f"{source.name}: d_model {config.d_model} is not divisible by num_heads {config.num_heads}"
        raise refusal("checkpoint.bad_config", path, what)
    return config


def _short(value: object) -> str:
    """Return a configuration value for a message: text or number as it is, otherwise only its type."""
    return visible(str(value)[:40]) if isinstance(value, str | int | float) else type(value).__name__


def _expected_shapes(config: _Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a model of this configuration has, by name."""
    width, inner = config.d_model, config.d_model * config.ffn_expansion
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (config.vocab_size, width),
        POSITIONS[config.pos_encoding]: (config.sequence_length, width),
        "output_norm.weight": (width,),
        "output_proj.weight": (config.vocab_size, width),
    }
    for index in range(config.num_layers):
        block = f"blocks.{index}."
        shapes |= {f"{block}{norm}.weight": (width,) for norm in ("norm1", "norm2")}
        shapes |= {f"{block}attention.W_{part}.weight": (width, width) for part in "qkvo"}
        shapes |= {f"{block}attention.W_{part}.bias": (width,) for part in "qkvo"}
        shapes |= {f"{block}ffn.linear1.weight": (inner, width), f"{block}ffn.linear1.bias": (inner,)}
        shapes |= {f"{block}ffn.linear2.weight": (width, inner), f"{block}ffn.linear2.bias": (width,)}
    return shapes


def _open_tokenizer(path: Path, given: Path | None) -> CharacterTokenizer:
    file = path.parent / "tokenizer.json" if given is None else given
    if given is None and not stands(file):
        what = "training not finished? tokenizer.json missing next to it"
        raise refusal("tokenizer.missing", path, what, "give one with `tokenizer`")
    return read_fundamentallm_tokenizer(file / "tokenizer.json" if file.is_dir() else file)


class _Norm(nn.Module):
    """Root mean square norm (Zhang and Sennrich 2019), computed in the dtype of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt(x.square().mean(dim=-1, keepdim=True) + NORM_EPS) * self.weight


class _Attention(nn.Module):
    """Causal attention with matrix products and softmax as separate operations, as in the original program.

    On a CPU in float32 this gives the original program's bits. The fused kernel would change logits by up to 2e-5 and
    save at most a quarter of the time of a forward pass at 256 to 512 tokens.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            layer(x).reshape(batch, length, self.heads, -1).transpose(1, 2) for layer in (self.W_q, self.W_k, self.W_v)
        )
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        rows = max(1, MAX_SCORES // (self.heads * length * length))
        parts = zip(query.split(rows), key.split(rows), value.split(rows), strict=True)
        mixed = torch.cat([_attend(*part, future) for part in parts])
        output: torch.Tensor = self.W_o(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
    """Return softmax(q kᵀ / √d) v (Vaswani et al. 2017), [B, heads, T, d], with the positions in `future` masked."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return F.softmax(scores.masked_fill(future, -math.inf), dim=-1) @ value


class _Block(nn.Module):
    def __init__(self, config: _Config) -> None:
        super().__init__()
        self.norm1 = _Norm(config.d_model)
        self.attention = _Attention(config.d_model, config.num_heads)
        self.norm2 = _Norm(config.d_model)
        inner = config.d_model * config.ffn_expansion
        layers = {
            "linear1": nn.Linear(config.d_model, inner),
            "gelu": nn.GELU(),
            "linear2": nn.Linear(inner, config.d_model),
        }
        self.ffn = nn.Sequential(OrderedDict(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        output: torch.Tensor = x + self.ffn(self.norm2(x))
        return output


class FundamentaLLM(nn.Module):
    """The FundamentaLLM decoder; it implements the `Checkpoint` protocol.

    Args:
        config: the sizes of the model.
        facts, tokenizer: as in the protocol.
    """

    def __init__(self, config: _Config, facts: CheckpointFacts, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.facts = facts
        self.tokenizer = tokenizer
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Parameter(torch.empty(config.sequence_length, config.d_model))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.output_norm = _Norm(config.d_model)
        self.output_proj = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @torch.inference_mode()
    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return final hidden states [B, T, D] of int64 ids [B, T], T at most `facts.context_length`."""
        x = self.token_embedding(ids) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        output: torch.Tensor = self.output_norm(x)
        return output

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, V] of hidden rows [N, D], in the compute dtype."""
        output: torch.Tensor = self.output_proj(hidden)
        return output
