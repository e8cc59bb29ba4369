"""The same layers, faster on a CPU: weights packed once for oneDNN's matrix kernels, which end with the activation.

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
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

# What oneDNN can do to the outputs while they are in the cache: its name for an activation, and which variant.
POST_OPERATIONS: dict[type, tuple[str, str]] = {
    GELUActivation: ("gelu", "none"),
    GELUTanh: ("gelu", "tanh"),
    NewGELUActivation: ("gelu", "tanh"),
    SiLUActivation: ("swish", ""),
    torch.nn.SiLU: ("swish", ""),
    torch.nn.ReLU: ("relu", ""),
}
# A layer and the activation of its outputs, by the names that model families give them.
ACTIVATED = (("c_fc", "act"), ("gate_proj", "act_fn"), ("fc1", "activation_fn"), ("fc_in", "act"))
# oneDNN makes and keeps a kernel for every number of rows that it meets, at 0.8 ms and 0.6 MB each: so there are few.
PACKED_ROW_STEP = 64
ROWS = 1024  # a body sees about so many at once; packing is for that many, and works for any
HEAD_ROWS = 96
PROBE_ROWS = 16
MOST_BYTES = 2 << 30
MOST_HEAD_BYTES = 256 << 20  # of a head that shares its weights with the embedding, and so is kept twice
TOLERANCE = 1e-5  # of the largest output: float32 rounding of one matrix product
MISSING = (AttributeError, NotImplementedError, RuntimeError)  # what torch raises without the operation or the kernel


class PackedLinear(torch.nn.Module):
    """A linear layer with packed weights, and what is done to its outputs.

    Args:
        layer: the layer, float32 on the CPU.
        rows: about how many rows it will be given at once.
        activation: what follows it, one of `POST_OPERATIONS`, or None.

    Raises:
        AttributeError, NotImplementedError, RuntimeError: this build of torch cannot pack.
    """

    def __init__(self, layer: Any, rows: int = ROWS, activation: Any = None) -> None:
        super().__init__()
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._operation = ("none", "") if activation is None else POST_OPERATIONS[type(activation)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activation(x · weightᵀ + bias), [..., out] of [..., in]."""
        rows = x.reshape(-1, x.shape[-1])
        count, missing = len(rows), -len(rows) % PACKED_ROW_STEP
        if missing:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
        name, variant = self._operation
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, name, [], variant)
        return output[:count].view(*x.shape[:-1], output.shape[-1])


@dataclass(frozen=True)
class Replacement:
    """A layer that a faster one stands for, so that it can be put back."""

    parent: Any
    name: str
    layer: Any

    def restore(self) -> None:
        """Put the layer back."""
        self.parent._modules[self.name] = self.layer


def speed_up(model: Any) -> list[Replacement]:
    """Put faster layers in the place of a model's own, but for its head, and return those that they stand for.

    Nothing is replaced in a model that is not in float32 on the CPU, or whose weights are larger than `MOST_BYTES`:
    until the old layers are let go, memory holds both.
    """
    weights = list(model.parameters())
    plain = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    if not plain or sum(weight.nbytes for weight in weights) > MOST_BYTES:
        return []
    head = model.get_output_embeddings()
    return [each for parent in list(model.modules()) for each in _speed_up_children(parent, head)]


def pack(layer: Any, rows: int = ROWS, activation: Any = None) -> PackedLinear | None:
    """Return a packed layer that gives what a linear layer and its activation do, or None where there is none."""
    if layer.weight.dtype != torch.float32 or layer.weight.device.type != "cpu":
        return None
    width = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
    with torch.inference_mode():
        probe = torch.sin(torch.arange(PROBE_ROWS * width, dtype=torch.float32)).view(PROBE_ROWS, width)
        try:
            packed = PackedLinear(layer, rows, activation)
            actual = packed(probe)
        except MISSING:
            return None
        expected = layer(probe) if activation is None else activation(layer(probe))
        return packed if (actual - expected).abs().max() <= TOLERANCE * expected.abs().max() else None


def replace_layer(model: Any, layer: Any, other: Any) -> None:
    """Put another layer in the place of one, wherever the model holds it."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is layer:
                parent._modules[name] = other


def _speed_up_children(parent: Any, head: Any) -> Iterator[Replacement]:
    """Replace the linear layers of one module, each with its activation where that follows at once."""
    follows = dict(ACTIVATED)
    for name, layer in list(parent._modules.items()):
        if type(layer) not in (torch.nn.Linear, Conv1D) or layer is head:  # exact types only, not what extends them
            continue
        after = follows.get(name, "")
        activation = parent._modules.get(after)
        fused = pack(layer, activation=activation) if type(activation) in POST_OPERATIONS else None
        packed = fused or pack(layer)
        if packed is not None:
            parent._modules[name] = packed
            yield Replacement(parent, name, layer)
        if fused is not None:
            parent._modules[after] = torch.nn.Identity()
            yield Replacement(parent, after, activation)
