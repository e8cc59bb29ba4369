"""Replace linear layers by faster ones on a CPU: weights packed once for oneDNN, with the activation fused in.

`torch.nn.functional.linear` packs the weights at each call, which costs most for few rows, as in the head. Packing uses
private operations of torch. So each packed layer is compared with float32 arithmetic on a probe before it replaces the
original, and the whole model is compared afterwards (`CausalLM`). Where the operations are missing or results differ by
more than rounding, the original layers stay.

A layer that was replaced gives its weights away, so that a model is in memory once. The packed weights hold the same
values in another order, from which the layer gets them back.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.model.stand_in import parts_of_head

# Activations that oneDNN can apply to its outputs: its name for the activation, and the variant. They are known by the
# name of their exact type, since the import of transformers' activations takes a second.
POST_OPERATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "transformers.activations.GELUActivation": ("gelu", "none"),
    "transformers.activations.GELUTanh": ("gelu", "tanh"),
    "transformers.activations.NewGELUActivation": ("gelu", "tanh"),
    "transformers.activations.SiLUActivation": ("swish", ""),
    "lossprobe.checkpoint.model.plain.gpt2.GeluTanh": ("gelu", "tanh"),
    "lossprobe.checkpoint.model.plain.gpt2.GeluNew": ("gelu", "tanh"),
    "torch.nn.modules.activation.SiLU": ("swish", ""),
    "torch.nn.modules.activation.ReLU": ("relu", ""),
}
# A layer and the activation of its outputs, by the names that model families give them.
ACTIVATED = (("c_fc", "act"), ("gate_proj", "act_fn"), ("fc1", "activation_fn"), ("fc_in", "act"))
# Rows are padded to a multiple of this: oneDNN keeps a kernel for each number of rows, at 0.8 ms and 0.6 MB each.
PACKED_ROW_STEP = 64
ROWS = 1024  # rows per call for which a body is packed; other numbers work too
HEAD_ROWS = 96  # rows per call for which a head is packed
PROBE_ROWS = 16
MOST_TWICE = 2 << 30  # most bytes of weights that are held packed and unpacked, because others still use the latter
MOST_HEAD_BYTES = 256 << 20  # largest tied head that is packed; the embedding still needs the unpacked weights
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = 1e-5  # relative to the largest output: float32 rounding of one matrix product
COMPARED = 4096  # outputs of a layer that are compared at once, so that its weights need no float32 copy
PACKABLE = (torch.nn.Linear, Conv1D)  # exact types only: subclasses may compute something else
MISSING = (AttributeError, NotImplementedError, RuntimeError)  # what torch raises without the operation or the kernel


class PackedLinear(torch.nn.Module):
    """A linear layer with packed weights, followed by an activation.

    Args:
        layer: the original layer, on the CPU, in one of `DTYPES`.
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
        self._operation = ("none", "") if activation is None else POST_OPERATIONS[_type_name(activation)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activation(x · weightᵀ + bias), [..., out] in the dtype of x [..., in]; sums are float32."""
        rows = x.reshape(-1, x.shape[-1])
        count, missing = len(rows), -len(rows) % PACKED_ROW_STEP
        if missing:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
        name, variant = self._operation
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, name, [], variant)
        return output[:count].view(*x.shape[:-1], output.shape[-1])

    def weight_for(self, layer: Any) -> torch.nn.Parameter:
        """Return the weights as `layer` has them, with the very values that were packed."""
        weight = self._packed.to_dense()
        return torch.nn.Parameter(weight.T.contiguous() if isinstance(layer, Conv1D) else weight, requires_grad=False)


@dataclass(frozen=True)
class Replacement:
    """A layer that was replaced by a faster one, so that it can be put back.

    Attributes:
        parent: the module that holds it.
        name: its name there.
        layer: the original layer, without its weights where these were packed.
        bytes_twice: size of its weights where others still use them, so that they are in memory twice.
    """

    parent: Any
    name: str
    layer: Any
    bytes_twice: int = 0

    def restore(self) -> None:
        """Put the original layer back, with its weights."""
        faster = self.parent._modules[self.name]
        if isinstance(faster, PackedLinear):
            self.layer._parameters["weight"] = faster.weight_for(self.layer)
        self.parent._modules[self.name] = self.layer


def speed_up(model: Any) -> list[Replacement]:
    """Replace linear layers of a model by packed ones, except its head, and return the replacements.

    Nothing is replaced in a model whose weights are not all on the CPU and in one of `DTYPES`. No more is replaced once
    `MOST_TWICE` bytes are in memory twice, because the weights are shared with another model or layer.
    """
    if not all(weight.dtype in DTYPES and weight.device.type == "cpu" for weight in model.parameters()):
        return []
    of_head = parts_of_head(model)
    parents = list(model.modules())
    held = Counter(id(layer) for parent in parents for layer in parent._modules.values())
    # A layer that several modules hold keeps its weights for all of them.
    left = of_head | {layer for layer in parents if type(layer) in PACKABLE and held[id(layer)] > 1}
    replaced: list[Replacement] = []
    twice = 0
    for parent in parents:
        for each in _speed_up_children(parent, left):
            replaced.append(each)
            twice += each.bytes_twice
        if twice > MOST_TWICE:
            break
    return replaced


def pack(layer: Any, rows: int = ROWS, activation: Any = None) -> PackedLinear | None:
    """Return a packed layer equal to a linear layer and its activation, or None where it cannot be made.

    Args:
        layer: a `torch.nn.Linear` or `Conv1D`.
        rows: about how many rows it will get per call.
        activation: the activation after it, one of `POST_OPERATIONS`, or None.
    """
    dtype = layer.weight.dtype
    if dtype not in DTYPES or layer.weight.device.type != "cpu":
        return None
    width = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
    with torch.inference_mode():
        probe = torch.sin(torch.arange(PROBE_ROWS * width, dtype=torch.float32)).view(PROBE_ROWS, width).to(dtype)
        try:
            packed = PackedLinear(layer, rows, activation)
            actual = packed(probe)
        except MISSING:
            return None
        return packed if _is_rounded(actual, _in_float32(layer, probe, activation)) else None


def _in_float32(layer: Any, x: torch.Tensor, activation: Any) -> torch.Tensor:
    """Return what a linear layer and its activation give for x [N, in], computed in float32: [N, out]."""
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight
    output = torch.cat([x.float() @ some.float().T for some in weight.split(COMPARED)], dim=1)
    output = output if layer.bias is None else output + layer.bias.float()
    return output if activation is None else torch.as_tensor(activation(output))


def _is_rounded(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether values are the expected float32 values but for rounding to their own dtype and of the product."""
    allowed = TOLERANCE * expected.abs().max()
    if actual.dtype != expected.dtype:
        allowed = allowed + torch.finfo(actual.dtype).eps * expected.abs()
    return bool(((actual.float() - expected).abs() <= allowed).all())


def pack_head(model: Any, layer: Any, *, tied: bool) -> PackedLinear | None:
    """Replace a model's head everywhere in it by a packed one; return it, or None where the head stays.

    Args:
        model: the model.
        layer: its head.
        tied: whether the embedding may use its weights, which then are in memory twice.
    """
    if tied and layer.weight.nbytes > MOST_HEAD_BYTES:
        return None
    head = pack(layer, HEAD_ROWS)
    if head is not None:
        replace_layer(model, layer, head)  # so that an untied head is not in memory twice
    return head


def replace_layer(model: Any, layer: Any, other: Any) -> None:
    """Replace `layer` by `other` everywhere in the model."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is layer:
                parent._modules[name] = other


def _speed_up_children(parent: Any, left: Container[Any]) -> Iterator[Replacement]:
    """Replace the linear layers of one module, with the activation where it directly follows, and yield each change.

    Layers in a dictionary stay: they are the small matrices of an adapter, whose code also reads their weights. The
    layer of the base beside them is replaced.
    """
    if isinstance(parent, torch.nn.ModuleDict) or parent in left:
        return
    follows = dict(ACTIVATED)
    for name, layer in list(parent._modules.items()):
        if type(layer) not in PACKABLE or layer in left:
            continue
        after = follows.get(name, "")
        activation = parent._modules.get(after)
        fused = pack(layer, activation=activation) if _type_name(activation) in POST_OPERATIONS else None
        packed = fused or pack(layer)
        if packed is not None:
            parent._modules[name] = packed
            yield Replacement(parent, name, layer, _without_weight(layer))
        if fused is not None:
            parent._modules[after] = torch.nn.Identity()
            yield Replacement(parent, after, activation)


def _type_name(module: Any) -> str:
    """Return the name of the exact type of a module, with where it is defined."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _without_weight(layer: Any) -> int:
    """Take the weights from a layer that was replaced; return their size where others still use them, else 0."""
    weight = layer._parameters["weight"]
    size, kept = int(weight.nbytes), weakref.ref(weight)
    layer._parameters["weight"] = None
    del weight
    return 0 if kept() is None else size
