"""GPT-2 (Radford et al. 2019): layer norms, a table of positions, and matrices that are stored [in, out]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.model.plain.language_model import PlainBody, PlainConfig, PlainLM, attend


@dataclass
class PlainGPT2Config(PlainConfig):
    """What decides the shapes and losses of a GPT-2; see its config.json."""

    model_type: ClassVar[str] = "gpt2"
    attribute_map: ClassVar[Mapping[str, str]] = {"max_position_embeddings": "n_positions"}

    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: str
    layer_norm_epsilon: float


class GeluTanh(torch.nn.Module):
    """GELU by a hyperbolic tangent, as torch computes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return GELU of each entry."""
        return torch.nn.functional.gelu(x, approximate="tanh")


class GeluNew(torch.nn.Module):
    """GELU by a hyperbolic tangent, one operation after the other, each rounded to the dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return GELU of each entry."""
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


ACTIVATIONS: Mapping[str, type[torch.nn.Module]] = {"gelu_new": GeluNew, "gelu_pytorch_tanh": GeluTanh}


def matrix(width: int, outputs: int) -> Any:
    """Return the layer with weights [in, out] that other parts of the package know by its type."""
    untyped: Any = Conv1D
    return untyped(outputs, width)


class GPT2Attention(torch.nn.Module):
    """Attention with one matrix for queries, keys and values."""

    def __init__(self, config: PlainGPT2Config, number: int) -> None:
        super().__init__()
        self.number, self.heads, width = number, config.n_head, config.n_embd
        self.c_attn = matrix(width, 3 * width)
        self.c_proj = matrix(width, width)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None, kept: Any) -> torch.Tensor:
        """Return what is added to the hidden states x [B, T, D]."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=2)
        )
        if kept is not None:
            key, value = kept.update(key, value, self.number)
        output: torch.Tensor = self.c_proj(attend(query, key, value, visible, (width // self.heads) ** -0.5))
        return output


class GPT2MLP(torch.nn.Module):
    """Two matrices with an activation between them."""

    def __init__(self, config: PlainGPT2Config) -> None:
        super().__init__()
        self.c_fc = matrix(config.n_embd, config.n_inner)
        self.c_proj = matrix(config.n_inner, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what is added to the hidden states x [B, T, D]."""
        output: torch.Tensor = self.c_proj(self.act(self.c_fc(x)))
        return output


class GPT2Layer(torch.nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, config: PlainGPT2Config, number: int) -> None:
        super().__init__()
        self.ln_1 = torch.nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, number)
        self.ln_2 = torch.nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None, kept: Any) -> torch.Tensor:
        """Return the hidden states [B, T, D] after the layer."""
        x = self.attn(self.ln_1(x), visible, kept).add_(x)
        output: torch.Tensor = self.mlp(self.ln_2(x)).add_(x)
        return output


class GPT2Body(PlainBody):
    """Embeddings of ids and of positions, layers and a last norm."""

    embedding = "wte"

    def __init__(self, config: PlainGPT2Config) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = torch.nn.Embedding(config.n_positions, config.n_embd)
        self.h = torch.nn.ModuleList(GPT2Layer(config, number) for number in range(config.n_layer))
        self.ln_f = torch.nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor | None, kept: Any
    ) -> torch.Tensor:
        """Return the final hidden states [B, T, D]; arguments as of `PlainBody.hidden`."""
        x = self.wte(ids).add_(self.wpe(positions))
        for layer in self.h:
            x = layer(x, visible, kept)
        output: torch.Tensor = self.ln_f(x)
        return output


class PlainGPT2(PlainLM):
    """A GPT-2 with its head."""

    base_model_prefix = "transformer"
    _keys_to_ignore_on_load_unexpected = ("attn.bias", "crossattention.bias")

    def body_of(self, config: Any) -> GPT2Body:
        """Return the body, without values."""
        return GPT2Body(config)
