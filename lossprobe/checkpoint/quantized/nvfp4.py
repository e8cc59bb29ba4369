"""NVFP4: FP4 numbers in groups of 16, with an FP8 scale for each group and one more for the tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lossprobe.checkpoint.quantized.codes import e2m1_pairs, from_octets, powers_of_two
from lossprobe.checkpoint.quantized.parts import Parts

GROUP = 16


@dataclass(frozen=True)
class Fp4Layout:
    """Weights FP4 · s · g or FP4 · s / g: s is the scale of a group, g that of the tensor.

    ModelOpt multiplies by g (modelopt.torch.quantization.qtensor.nvfp4_tensor), compressed-tensors divides by it
    (compressed_tensors.quantization.lifecycle.forward). FP4 1.5 with s = 2 and g = 4 is 12 in the one and 0.75 in the
    other. Both combine s and g in float32 first.

    Attributes:
        codes_end: end of the name of the FP4 numbers, two a byte, the low half first.
        global_end: end of the name of g; "" for MXFP4, whose s are powers of two and which has no g.
        divides: whether the weight is divided by g.
        group_size: numbers of a group.
    """

    codes_end: str
    global_end: str
    divides: bool
    group_size: int = GROUP
    optional: ClassVar[frozenset[str]] = frozenset()

    @property
    def required(self) -> frozenset[str]:
        """Ends of the names of the tensors that there must be."""
        return frozenset(filter(None, (self.codes_end, ".weight_scale", self.global_end)))

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in] of bytes [out, in / 2]."""
        outputs, octets = parts.shape(self.codes_end, "U8")
        groups = parts.groups_of(self.codes_end, octets * 2, self.group_size)
        kinds = ("F8_E4M3",) if self.global_end else ("U8", "F8_E8M0")
        parts.expect(".weight_scale", *kinds, shape=(outputs, groups))
        if self.global_end:
            sides = len(parts.entries[self.global_end].shape)
            parts.expect(self.global_end, "F32", shape=(1,) * min(sides, 1))
        return outputs, octets * 2

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return the weights, float32 [out, in]."""
        scale = parts.read(".weight_scale")
        if not self.global_end:
            scale = powers_of_two(scale)
        elif self.divides:
            scale = scale.float() / parts.read(self.global_end)
        else:
            scale = scale.float() * parts.read(self.global_end)
        return from_octets(parts.read(self.codes_end), e2m1_pairs(), scale, (1, self.group_size))
