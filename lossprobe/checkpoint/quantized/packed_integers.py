"""Integers packed along the inputs of a layer, as compressed-tensors stores them ("pack-quantized")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lossprobe.checkpoint.quantized.codes import from_codes, unpack
from lossprobe.checkpoint.quantized.parts import FLOATS, Parts


@dataclass(frozen=True)
class PackedLayout:
    """Weights (q − z) · s (compressed_tensors.compressors.pack_quantized).

    Codes and zero points are stored with 2^(bits − 1) added: the 4-bit codes 3 and 9 are −5 and 1. Codes are packed
    along the inputs, zero points along the outputs. The products are exact in float32.

    Attributes:
        bits: 1 to 8.
        symmetric: whether there are no zero points.
        group_size: inputs of a group; 0 for one group a row, −1 for one scale in all.
        by_activation: whether `weight_g_idx` gives the group of each input.
    """

    bits: int
    symmetric: bool
    group_size: int
    by_activation: bool = False
    optional: ClassVar[frozenset[str]] = frozenset()

    @property
    def required(self) -> frozenset[str]:
        """Ends of the names of the tensors that there must be."""
        zeros = () if self.symmetric else (".weight_zero_point",)
        group = (".weight_g_idx",) if self.by_activation else ()
        return frozenset((".weight_packed", ".weight_scale", ".weight_shape", *zeros, *group))

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in], which `weight_shape` states."""
        outputs, words = parts.shape(".weight_packed", "I32")
        parts.expect(".weight_shape", "I64", "I32", shape=(2,))
        stated = tuple(parts.read(".weight_shape").tolist())
        inputs = stated[1]
        if stated[0] != outputs or inputs < 1 or -(-inputs * self.bits // 32) != words:
            what = f"says {list(stated)}, but {outputs} x {words} words hold other codes of {self.bits} bits"
            raise parts.refused(".weight_shape", what)
        groups = parts.groups_of(".weight_packed", inputs, self.group_size if self.group_size > 0 else inputs)
        scales = (1, 1) if self.group_size == -1 else (outputs, groups)
        flat = self.group_size == -1 and len(parts.entries[".weight_scale"].shape) < 2
        parts.expect(".weight_scale", *FLOATS, shape=scales[1:] if flat else scales)
        if not self.symmetric:
            parts.expect(".weight_zero_point", "I32", shape=(-(-outputs * self.bits // 32), scales[1]))
        if self.by_activation:
            parts.expect(".weight_g_idx", "I32", "I64", shape=(inputs,))
        return outputs, inputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return (q − z) · s, float32 [out, in]."""
        outputs, inputs = self.shape(parts)
        scale = parts.read(".weight_scale").float()
        scale = scale.view(-1, scale.shape[-1])
        words = parts.read(".weight_packed")
        self._refuse_more(parts, ".weight_packed", words, inputs)
        middle = 1 << self.bits - 1
        zeros = torch.full_like(scale, middle)
        if not self.symmetric:
            points = parts.read(".weight_zero_point").T
            self._refuse_more(parts, ".weight_zero_point", points, outputs)
            zeros = unpack(points, self.bits)[:, :outputs].T.float()
        group = self._groups(parts, scale.shape[1]) if self.by_activation else None
        return from_codes(words, self.bits, zeros, scale, inputs, group)

    def _refuse_more(self, parts: Parts, end: str, words: torch.Tensor, count: int) -> None:
        """Refuse lines of words that hold anything but 0 after some codes."""
        if words.shape[1] * 32 // self.bits > count and unpack(words, self.bits)[:, count:].any():
            raise parts.refused(end, f"holds codes beyond the {count} of a line")

    def _groups(self, parts: Parts, groups: int) -> torch.Tensor:
        """Return the group of each input, int64 [in]."""
        group = parts.read(".weight_g_idx").long()
        if not torch.equal(group.sort().values, torch.arange(len(group)) // self.group_size):
            raise parts.refused(".weight_g_idx", f"does not hold each of {groups} groups {self.group_size} times")
        return group
