"""Linear layers in half precision on processors whose matrix library cannot multiply it: products in float32.

Without AVX-512 the products of torch in bfloat16 take seven times as long as in float32 (9 against 68 GFLOP/s on one
core of an AMD EPYC with AVX2, torch 2.13). So weights are widened to float32 when they are used, a tile of them at a
time, and each output is rounded once, as a processor with such instructions does it. In memory they stay as they are.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.model.stand_in import parts_of_head

TILE_BYTES: Final = 8 << 20  # float32 weights that are held at once
HALF: Final = (torch.bfloat16, torch.float16)
X86: Final = ("x86_64", "AMD64")


class WidenedLinear(torch.nn.Linear):
    """A linear layer whose weights [out, in] are widened when they are used."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return x · weightᵀ + bias, [..., out] in the dtype of the weights, for x [..., in]; sums are float32."""
        return linear_in_float32(input, self.weight, self.bias)


class WidenedConv1D(Conv1D):
    """A layer of GPT-2, whose weights [in, out] are widened when they are used."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x · weight + bias, [..., out] in the dtype of the weights, for x [..., in]; sums are float32."""
        return linear_in_float32(x, self.weight.T, self.bias)


WIDENED: Final[dict[type, type]] = {torch.nn.Linear: WidenedLinear, Conv1D: WidenedConv1D}  # exact types only


@dataclass(frozen=True)
class Widening:
    """A layer whose products are computed in float32, until they are put back.

    Attributes:
        layer: the layer; it keeps its weights and its place.
        kind: its type before.
    """

    layer: Any
    kind: type

    def restore(self) -> None:
        """Compute as before."""
        self.layer.__class__ = self.kind


def needs_widening(dtype: torch.dtype, device: str) -> bool:
    """Return whether the matrix library cannot multiply a dtype on this processor.

    Args:
        dtype: dtype of weights.
        device: "cpu", "cuda:0", ...
    """
    if not device.startswith("cpu") or platform.machine() not in X86:
        return False
    try:
        if dtype == torch.bfloat16:
            return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return dtype == torch.float16 and not torch.ops.mkldnn._is_mkldnn_fp16_supported()
    except AttributeError:  # this build of torch is without the library
        return dtype in HALF


def widen(layer: Any) -> Widening | None:
    """Let a layer compute in float32; return None for one of another type, or in another dtype than half precision."""
    kind = type(layer)
    if kind not in WIDENED or layer.weight.dtype not in HALF:
        return None
    layer.__class__ = WIDENED[kind]
    return Widening(layer, kind)


def widen_body(model: Any) -> list[Widening]:
    """Let all linear layers of a model but its head compute in float32; return those that do."""
    of_head = parts_of_head(model)
    return [each for layer in model.modules() if layer not in of_head and (each := widen(layer)) is not None]


def linear_in_float32(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x · weightᵀ + bias of x [..., in], weight [out, in] and bias [out], in the dtype of the weight.

    Sums are float32, rounded once: in bfloat16, 256 · 1 + 1 · 1 + 1 · 1 is 258, where rounding each sum gives 256.
    """
    rows = x.reshape(-1, x.shape[-1]).float()
    output = torch.empty(len(rows), len(weight), dtype=weight.dtype)
    step = max(1, TILE_BYTES // (4 * weight.shape[1]))
    for start in range(0, len(weight), step):
        some = slice(start, start + step)
        output[:, some] = torch.nn.functional.linear(
            rows, weight[some].float(), None if bias is None else bias[some].float()
        )
    return output.view(*x.shape[:-1], len(weight))
