"""Compare two results of a model up to rounding."""

from __future__ import annotations

import torch

TOLERANCE = 1e-5  # relative to the largest value: float32 rounding of one matrix product


def agree(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two tensors of logits or hidden states have one shape and differ by no more than rounding.

    The tolerance is relative to the largest expected value: 1e-5, or four units of the dtype's precision if larger.
    """
    if actual.shape != expected.shape:
        return False
    tolerance = max(TOLERANCE, 4 * torch.finfo(expected.dtype).eps)
    return torch.allclose(actual.float(), expected.float(), rtol=0.0, atol=tolerance * max(largest(expected), 1e-6))


def largest(values: torch.Tensor) -> float:
    """Return the largest absolute value among the finite values; 0 where there are none."""
    finite = values[torch.isfinite(values)]
    return float(finite.abs().max()) if finite.numel() else 0.0
