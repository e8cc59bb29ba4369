"""The same layers, faster on a CPU: weights packed once for oneDNN's matrix kernels, and GELU in one kernel.

`torch.nn.functional.linear` packs the weights anew at each call, which costs most where rows are few, as in the head.
Packing goes through torch's private operations, so each layer is tried on a probe before it takes the place of the one
that was loaded, and then all together; where the operations are missing, or results differ by more than float32
rounding, nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

ROWS = 1024  # a body sees about so many at once; packing is for that many, and works for any
HEAD_ROWS = 96
PROBE_ROWS = 16
MOST_BYTES = 2 << 30
MOST_HEAD_BYTES = 256 << 20  # of a head that shares its weights with the embedding, and so is kept twice
TOLERANCE = 1e-5  # of the largest output: float32 rounding of one matrix product
MISSING = (AttributeError, NotImplementedError, RuntimeError)  # what torch raises without the operation or the kernel


class PackedLinear(torch.nn.Module):
    """A linear layer with packed weights.

    Args:
        weight: float32 [out, in], on the CPU.
        bias: float32 [out], or None.
        rows: about how many rows it will be given at once.

    Raises:
        AttributeError, NotImplementedError, RuntimeError: this build of torch cannot pack.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, rows: int = ROWS) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x · weightᵀ + bias, [..., out] of [..., in]."""
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return output


@dataclass(frozen=True)
class Replaced:
    """A layer that a faster one stands for, so that it can be put back."""

    parent: Any
    name: str
    layer: Any

    def restore(self) -> None:
        """Put the layer back."""
        self.parent._modules[self.name] = self.layer


def speed_up(model: Any) -> list[Replaced]:
    """Put faster layers in the place of a model's own, but for its head, and return those that they stand for.

    Nothing is replaced in a model that is not in float32 on the CPU, or whose weights are larger than `MOST_BYTES`:
    until the old layers are let go, memory holds both.
    """
    weights = list(model.parameters())
    plain = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    if not plain or sum(weight.nbytes for weight in weights) > MOST_BYTES:
        return []
    head, replaced = model.get_output_embeddings(), []
    for parent, name, layer in list(_layers(model)):
        faster: torch.nn.Module | None = None
        if isinstance(layer, NewGELUActivation):
            faster = torch.nn.GELU(approximate="tanh")
        elif layer is not head:
            faster = pack(layer)
        if faster is not None:
            parent._modules[name] = faster
            replaced.append(Replaced(parent, name, layer))
    return replaced


def pack(layer: Any, rows: int = ROWS) -> PackedLinear | None:
    """Return a layer with packed weights that gives what a linear layer does, or None where there is none."""
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return None
    with torch.inference_mode():
        probe = torch.sin(torch.arange(PROBE_ROWS * weight.shape[1], dtype=torch.float32)).view(PROBE_ROWS, -1)
        try:
            packed = PackedLinear(weight, layer.bias, rows)
            actual = packed(probe)
        except MISSING:
            return None
        expected = layer(probe)
        return packed if (actual - expected).abs().max() <= TOLERANCE * expected.abs().max() else None


def _layers(model: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield the layers that can be replaced, with their parents and names; exact types only, not what extends them."""
    for parent in model.modules():
        for name, layer in parent._modules.items():
            if type(layer) in (torch.nn.Linear, Conv1D, NewGELUActivation):
                yield parent, name, layer
