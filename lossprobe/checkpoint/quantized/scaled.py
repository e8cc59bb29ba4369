"""Weights stored as FP8 or 8-bit integers, one number each, with scales for tensors, rows, groups or blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lossprobe.checkpoint.quantized.codes import finite, from_octets, powers_of_two, table_of
from lossprobe.checkpoint.quantized.parts import FLOATS, Parts

FP8 = "F8_E4M3"


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
        block = self._block(*stored.shape)
        sides = [-(-side // size) for side, size in zip(stored.shape, block, strict=True)]
        scale = self._scale(parts).view(sides)
        if not self.zero_end:
            return from_octets(stored.view(torch.uint8), table_of(stored.dtype), scale, block)
        ones = torch.ones(256, 1)
        zeros = from_octets(stored.view(torch.uint8), ones, parts.read(self.zero_end).float().view(sides), block)
        scales = from_octets(stored.view(torch.uint8), ones, scale, block)
        return finite(stored.float().sub_(zeros).mul_(scales))

    def _block(self, outputs: int, inputs: int) -> tuple[int, int]:
        rows, columns = self.block
        return rows or outputs, columns or inputs

    def _scale(self, parts: Parts) -> torch.Tensor:
        """Return the scales, float32."""
        scale = parts.read(self.scale_end)
        return powers_of_two(scale) if parts.entries[self.scale_end].dtype in ("U8", "F8_E8M0") else scale.float()
