"""Rotary positions (Su et al. 2021): pairs of entries are turned by angles that grow with the position."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 slows the turns down for a longer context; named as in config.json.

    Attributes:
        factor: by what the slowest turns are slowed.
        low_freq_factor: turns over the first context up to which all are slowed.
        high_freq_factor: turns over the first context from which none are.
        original_max_position_embeddings: the first context, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class Rope:
    """What decides the angles; named as in config.json.

    Attributes:
        rope_theta: the base.
        scaling: how they are changed for a longer context; None for not.
    """

    rope_theta: float
    scaling: Llama3Scaling | None = None


class Rotation(torch.nn.Module):
    """Cosines and sines of the angles."""

    inv_freq: torch.Tensor

    def __init__(self, rope: Rope, width: int) -> None:
        super().__init__()
        self.rope_type = "default" if rope.scaling is None else "llama3"
        # On the CPU even where the model is built without values: a buffer is not among the stored tensors.
        shares = torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width
        speeds = 1.0 / (rope.rope_theta**shares)
        self.register_buffer(
            "inv_freq", speeds if rope.scaling is None else slowed(speeds, rope.scaling), persistent=False
        )

    @torch.no_grad()
    def forward(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines [B, 1, T, width] of positions [B, T]."""
        angles = positions[..., None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def slowed(speeds: torch.Tensor, scaling: Llama3Scaling) -> torch.Tensor:
    """Return angles a token, float32 [D / 2], slowed as in Llama 3.1.

    With f the number of turns over the first context: a speed is divided by the factor where f is below the low limit
    l, kept where it is above the high one h, and between them a mean of both, weighted by (f - l) / (h - l).

    Args:
        speeds: angles a token, in radians, float32 [D / 2].
        scaling: the limits.
    """
    factor, low, high = scaling.factor, scaling.low_freq_factor, scaling.high_freq_factor
    first = scaling.original_max_position_embeddings
    lengths = 2 * math.pi / speeds  # tokens of a whole turn
    ends = torch.where(lengths > first / low, speeds / factor, speeds)
    weight = (first / lengths - low) / (high - low)
    between = (lengths >= first / high) & (lengths <= first / low)
    return torch.where(between, (1 - weight) * ends / factor + weight * ends, ends)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return x [B, H, T, D] with entry i turned against entry i + D / 2."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos) + (torch.cat((-second, first), dim=-1) * sin)
