"""The steps between the matrix products of a Llama: RMS norms and rotary positions.

In float32 on a CPU they are done by compiled loops that visit each number once, where torch's operations write one
tensor after the other to memory. The loops are used only where a probe gives the same bytes as these operations; so
results do not depend on who computes them.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import torch

from lossprobe.checkpoint.model.plain import step_loops
from lossprobe.checkpoint.model.plain.rotary import rotate
from lossprobe.compiler import compile_apart, share_threads

COMPILE: Final = "from lossprobe.checkpoint.model.plain.steps import compile_loops; compile_loops()"
VECTORS: Final = ("AVX2", "AVX512")  # otherwise torch adds in another order
PROBE_ROWS: Final = 64  # of each, another order changes the sum with a probability of a half


def normalised(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return the rows of x divided by √(mean of x² + ε), in float32, then rounded to their dtype and times weights.

    Args:
        x: [..., D].
        weight: [D].
        epsilon: ε.
    """
    if _is_for_loops(x) and _norm_is_exact(x.shape[-1]):
        return _normalised_by_loops(x, weight, epsilon)
    return _normalised_by_torch(x, weight, epsilon)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return queries or keys [B, H, T, D] with entry i turned against entry i + D / 2.

    Args:
        x: [B, T, H, D]; it may be overwritten.
        cos: [1 or B, 1, T, D], cosines of the angles.
        sin: [1 or B, 1, T, D], their sines.
    """
    if not (_is_for_loops(x) and _turn_is_exact()):
        return rotate(x.transpose(1, 2), cos, sin)
    _turn_by_loops(x, cos, sin)
    return x.transpose(1, 2)


def _is_for_loops(x: torch.Tensor) -> bool:
    """Return whether the loops can read a tensor; they do not note what gradients need."""
    return x.dtype == torch.float32 and x.is_cpu and x.is_contiguous() and not torch.is_grad_enabled()


def _normalised_by_torch(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return wide.to(x.dtype).mul_(weight)


def _normalised_by_loops(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    share_threads(torch.get_num_threads, torch.set_num_threads)
    out = torch.empty_like(x)
    rows, to = (each.view(-1, each.shape[-1]).numpy() for each in (x, out))
    step_loops.normalise(rows, weight.detach().numpy(), np.float32(epsilon), to)
    return out


def _turn_by_loops(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    share_threads(torch.get_num_threads, torch.set_num_threads)
    width = x.shape[-1]
    heads = x.view(-1, x.shape[2], 2, width // 2)
    step_loops.turn(heads.numpy(), cos.view(-1, width).numpy(), sin.view(-1, width).numpy())


@cache
def _norm_is_exact(width: int) -> bool:
    """Return whether the loop for norms gives the bytes of torch's operations for rows of a width."""
    if width % step_loops.SUMS or torch.backends.cpu.get_cpu_capability() not in VECTORS:
        return False
    compile_apart(step_loops.normalise, COMPILE)
    rows = torch.sin(torch.arange((PROBE_ROWS + 1) * width, dtype=torch.float32)).view(-1, width)
    arguments = rows[1:], rows[0], 1e-6
    return torch.equal(_normalised_by_loops(*arguments), _normalised_by_torch(*arguments))


@cache
def _turn_is_exact() -> bool:
    """Return whether the loop for rotary positions gives the bytes of torch's operations."""
    compile_apart(step_loops.turn, COMPILE)
    x = torch.sin(torch.arange(PROBE_ROWS * 3 * 32, dtype=torch.float32)).view(1, PROBE_ROWS, 3, 32)
    angles = 9 * x[:, None, :, 0, :16].repeat(1, 1, 1, 2)
    turns = angles.cos(), angles.sin()
    expected = rotate(x.transpose(1, 2), *turns)
    _turn_by_loops(x, *turns)
    return torch.equal(x.transpose(1, 2), expected)


def compile_loops() -> None:
    """Compile the loops in this process, so that their code is cached on disk."""
    row = torch.zeros(1, 1, 1, step_loops.SUMS)
    _normalised_by_loops(row, row.flatten(), 1.0)
    _turn_by_loops(row, row, row)
