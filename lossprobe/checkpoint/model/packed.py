"""Replace linear layers by faster ones on a CPU: weights packed once for oneDNN, with the activation fused in.

`torch.nn.functional.linear` packs the weights at each call, which costs most for few rows, as in the head. Packing uses
private operations of torch. So each packed layer is compared with the original on a probe before it replaces it, and
the whole model is compared afterwards (`CausalLM`). Where the operations are missing or results differ by more than
float32 rounding, the original layers stay.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

# Activations that oneDNN can apply to its outputs: its name for the activation, and the variant.
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
# Rows are padded to a multiple of this: oneDNN keeps a kernel for each number of rows, at 0.8 ms and 0.6 MB each.
PACKED_ROW_STEP = 64
ROWS = 1024  # rows per call for which a body is packed; other numbers work too
HEAD_ROWS = 96  # rows per call for which a head is packed
PROBE_ROWS = 16
MOST_BYTES = 2 << 30  # weights of the largest model whose layers are packed
MOST_HEAD_BYTES = 256 << 20  # largest tied head that is packed; the embedding still needs the unpacked weights
TOLERANCE = 1e-5  # relative to the largest output: float32 rounding of one matrix product
MISSING = (AttributeError, NotImplementedError, RuntimeError)  # what torch raises without the operation or the kernel


class PackedLinear(torch.nn.Module):
    """A linear layer with packed weights, followed by an activation.

    Args:
        layer: the original layer, float32 on the CPU.
        rows: about how many rows it will get per call.
        activation: the activation after it, one of `POST_OPERATIONS`, or None.

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
        """Return activation(x · weightᵀ + bias), float32 [..., out], of x [..., in]."""
        rows = x.reshape(-1, x.shape[-1])
        count, missing = len(rows), -len(rows) % PACKED_ROW_STEP
        if missing:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
        name, variant = self._operation
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, name, [], variant)
        return output[:count].view(*x.shape[:-1], output.shape[-1])


@dataclass(frozen=True)
class Replacement:
    """A layer that was replaced by a faster one, so that it can be put back.

    Attributes:
        parent: the module that holds it.
        name: its name there.
        layer: the original layer.
    """

    parent: Any
    name: str
    layer: Any

    def restore(self) -> None:
        """Put the original layer back."""
        self.parent._modules[self.name] = self.layer


def speed_up(model: Any) -> list[Replacement]:
    """Replace linear layers of a model by packed ones, except its head, and return the replacements.

    Nothing is replaced in a model that is not in float32 on the CPU, or whose weights are larger than `MOST_BYTES`,
    because the original and the packed weights are in memory at the same time.
    """
    weights = list(model.parameters())
    plain = all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
    if not plain or sum(weight.nbytes for weight in weights) > MOST_BYTES:
        return []
    head = model.get_output_embeddings()
    of_head = set() if head is None else set(head.modules())  # also the parts of an adapter's head
    return [each for parent in list(model.modules()) for each in _speed_up_children(parent, of_head)]


def pack(layer: Any, rows: int = ROWS, activation: Any = None) -> PackedLinear | None:
    """Return a packed layer equal to a linear layer and its activation, or None where it cannot be made.

    Args:
        layer: a `torch.nn.Linear` or `Conv1D`.
        rows: about how many rows it will get per call.
        activation: the activation after it, one of `POST_OPERATIONS`, or None.
    """
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
    """Replace `layer` by `other` everywhere in the model."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is layer:
                parent._modules[name] = other


def _speed_up_children(parent: Any, of_head: Container[Any]) -> Iterator[Replacement]:
    """Replace the linear layers of one module, with the activation where it directly follows, and yield each change.

    Layers in a dictionary stay: they are the small matrices of an adapter, whose code also reads their weights. The
    layer of the base beside them is replaced.
    """
    if isinstance(parent, torch.nn.ModuleDict) or parent in of_head:
        return
    follows = dict(ACTIVATED)
    for name, layer in list(parent._modules.items()):
        if (
            type(layer) not in (torch.nn.Linear, Conv1D) or layer in of_head
        ):  # exact types only: subclasses may compute something else
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
