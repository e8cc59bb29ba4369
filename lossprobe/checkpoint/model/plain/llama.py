"""Llama (Touvron et al. 2023) and its like: RMS norms, rotary positions, grouped queries, gated SiLU.

Mistral, Qwen2 and Qwen3 differ from it in biases, and in norms of queries and keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lossprobe.checkpoint.model.plain.language_model import PlainBody, PlainConfig, PlainLM, attend
from lossprobe.checkpoint.model.plain.rotary import Rope, Rotation
from lossprobe.checkpoint.model.plain.steps import normalised, turned


@dataclass
class PlainLlamaConfig(PlainConfig):
    """What decides the shapes and losses of a Llama and its like; see its config.json.

    Attributes:
        attention_bias: whether queries, keys and values have biases.
        output_bias: whether the output of attention has.
        mlp_bias: whether the matrices of the MLP have.
        head_norms: whether queries and keys are normalised, each head by itself.
    """

    model_type: ClassVar[str] = "llama"

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: Rope
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False


@dataclass
class PlainMistralConfig(PlainLlamaConfig):
    """As of a Llama, for a Mistral without a sliding window."""

    model_type: ClassVar[str] = "mistral"


@dataclass
class PlainQwen2Config(PlainLlamaConfig):
    """As of a Llama, for a Qwen2."""

    model_type: ClassVar[str] = "qwen2"


@dataclass
class PlainQwen3Config(PlainLlamaConfig):
    """As of a Llama, for a Qwen3."""

    model_type: ClassVar[str] = "qwen3"


class RmsNorm(torch.nn.Module):
    """x / √(mean of x² + ε), computed in float32, times weights."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised rows of x [..., D]."""
        return normalised(x, self.weight, self.epsilon)


class LlamaAttention(torch.nn.Module):
    """Attention whose keys and values serve several queries each."""

    def __init__(self, config: PlainLlamaConfig, number: int) -> None:
        super().__init__()
        self.number, self.width = number, config.head_dim
        queries, keys = (count * self.width for count in (config.num_attention_heads, config.num_key_value_heads))
        inner, bias = config.hidden_size, config.attention_bias
        self.q_proj = torch.nn.Linear(inner, queries, bias=bias)
        self.k_proj = torch.nn.Linear(inner, keys, bias=bias)
        self.v_proj = torch.nn.Linear(inner, keys, bias=bias)
        self.o_proj = torch.nn.Linear(queries, inner, bias=config.output_bias)
        self.head_norms = config.head_norms
        if self.head_norms:
            self.q_norm = RmsNorm(self.width, config.rms_norm_eps)
            self.k_norm = RmsNorm(self.width, config.rms_norm_eps)

    def forward(
        self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], visible: torch.Tensor | None, kept: Any
    ) -> torch.Tensor:
        """Return what is added to the hidden states x [B, T, D]."""
        query, key, value = (
            layer(x).view(*x.shape[:-1], -1, self.width) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.head_norms:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key, value = turned(query, *turns), turned(key, *turns), value.transpose(1, 2)
        if kept is not None:
            key, value = kept.update(key, value, self.number)
        output: torch.Tensor = self.o_proj(attend(query, key, value, visible, self.width**-0.5))
        return output


class LlamaMLP(torch.nn.Module):
    """Two matrices, one of them a gate, and a third."""

    def __init__(self, config: PlainLlamaConfig) -> None:
        super().__init__()
        outer, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = torch.nn.Linear(outer, inner, bias=bias)
        self.up_proj = torch.nn.Linear(outer, inner, bias=bias)
        self.down_proj = torch.nn.Linear(inner, outer, bias=bias)
        self.act_fn = torch.nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the hidden states x [B, T, D]."""
        output: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)).mul_(self.up_proj(x)))
        return output


class LlamaLayer(torch.nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, config: PlainLlamaConfig, number: int) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, number)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], visible: torch.Tensor | None, kept: Any
    ) -> torch.Tensor:
        """Return the hidden states [B, T, D] after the layer."""
        x = self.self_attn(self.input_layernorm(x), turns, visible, kept).add_(x)
        output: torch.Tensor = self.mlp(self.post_attention_layernorm(x)).add_(x)
        return output


class LlamaBody(PlainBody):
    """Embedding, layers and a last norm."""

    embedding = "embed_tokens"

    def __init__(self, config: PlainLlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList(LlamaLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = Rotation(config.rope, config.head_dim)

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor | None, kept: Any
    ) -> torch.Tensor:
        """Return the final hidden states [B, T, D]; arguments as of `PlainBody.hidden`."""
        x = self.embed_tokens(ids)
        turns = self.rotary_emb(positions, x.dtype)
        for layer in self.layers:
            x = layer(x, turns, visible, kept)
        output: torch.Tensor = self.norm(x)
        return output


class PlainLlama(PlainLM):
    """A Llama, or its like, with its head."""

    base_model_prefix = "model"

    def body_of(self, config: Any) -> LlamaBody:
        """Return the body, without values."""
        return LlamaBody(config)
