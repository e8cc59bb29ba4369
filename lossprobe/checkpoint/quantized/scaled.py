"""Weights stored as FP8 or 8-bit integers, one number each, with scales for tensors, rows, groups or blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lossprobe.checkpoint.quantized.codes import fp8_values, powers_of_two
from lossprobe.checkpoint.quantized.parts import FLOATS, Parts

FP8 = "F8_E4M3"


def multiply(weight: torch.Tensor, scale: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Multiply each block of a weight by its scale, in place, and return the weight.

    Blocks at the right and lower edge may be smaller. With blocks of 2 x 2, a weight of ones [3, 3] and the scales
    [[2, 3], [4, 5]] become [[2, 2, 3], [2, 2, 3], [4, 4, 5]].

    Args:
        weight: float32 [out, in].
        scale: float32 [ceil(out / rows), ceil(in / columns)].
        block: rows and columns of a block.
    """
    rows, columns = (min(size, side) for size, side in zip(block, weight.shape, strict=True))
    if rows == 1 and weight.shape[1] % columns == 0:
        weight.view(len(weight), -1, columns).mul_(scale[:, :, None])
        return weight
    for number, factors in enumerate(scale):
        weight[number * rows : (number + 1) * rows].mul_(factors.repeat_interleave(columns)[: weight.shape[1]])
    return weight


@dataclass(frozen=True)
class ScaledLayout:
    """Weights (q − z) · s, where q is stored as it is.

    DeepSeek's `weight_scale_inv` multiplies too, although its name says the inverse: in its inference code
    (kernel.py, `weight_dequant`) the FP8 number 1.5 with the scale 0.25 is 0.375.

    Attributes:
        stored: dtype code of the weight, "F8_E4M3" or "I8".
        scale_end: end of the scale's name.
        block: rows and columns that share a scale; 0 for the whole side.
        scale_dtypes: dtype codes that the scale may have; U8 and F8_E8M0 hold powers of two.
        zero_end: end of the zero point's name; "" where 0 stands for 0.
        bare: whether the scales may be listed without the sides of length 1: [] or [1] for [1, 1], [out] for [out, 1].
    """

    stored: str
    scale_end: str
    block: tuple[int, int]
    scale_dtypes: tuple[str, ...] = FLOATS
    zero_end: str = ""
    bare: bool = False
    optional: ClassVar[frozenset[str]] = frozenset()

    @property
    def required(self) -> frozenset[str]:
        """Ends of the names of the tensors that there must be."""
        return frozenset(filter(None, (".weight", self.scale_end, self.zero_end)))

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in] of the weight."""
        outputs, inputs = parts.shape(".weight", self.stored)
        rows, columns = self._block(outputs, inputs)
        scales = (-(-outputs // rows), -(-inputs // columns))
        for end, dtypes in ((self.scale_end, self.scale_dtypes), (self.zero_end, ("I8",))):
            if end:
                stored = parts.entries[end].shape
                shorter = ((), (1,)) if scales == (1, 1) else (scales[:1],) if scales[1] == 1 else ()
                parts.expect(end, *dtypes, shape=stored if self.bare and stored in shorter else scales)
        return outputs, inputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return (q − z) · s, float32 [out, in]."""
        stored = parts.read(".weight")
        weight = fp8_values(stored) if self.stored == FP8 else stored.float()
        block = self._block(*weight.shape)
        sides = [-(-side // size) for side, size in zip(weight.shape, block, strict=True)]
        if self.zero_end:
            zeros = torch.ones_like(weight)
            weight -= multiply(zeros, parts.read(self.zero_end).float().view(sides), block)
        return multiply(weight, self._scale(parts).view(sides), block)

    def _block(self, outputs: int, inputs: int) -> tuple[int, int]:
        rows, columns = self.block
        return rows or outputs, columns or inputs

    def _scale(self, parts: Parts) -> torch.Tensor:
        """Return the scales, float32."""
        scale = parts.read(self.scale_end)
        return powers_of_two(scale) if parts.entries[self.scale_end].dtype in ("U8", "F8_E8M0") else scale.float()
