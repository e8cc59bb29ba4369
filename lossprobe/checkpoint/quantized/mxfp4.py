"""MXFP4: the experts of gpt-oss, FP4 numbers in blocks of 32 with a power of two for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from lossprobe.checkpoint.files import fresh_memory
from lossprobe.checkpoint.quantized.codes import e2m1_pairs, from_octets, powers_of_two
from lossprobe.checkpoint.quantized.names import stands_in
from lossprobe.checkpoint.quantized.parts import Parts
from lossprobe.checkpoint.quantized.settings import Settings

ENDS = ("_blocks", "_scales")


@dataclass(frozen=True)
class Mxfp4Layout:
    """Weights FP4 · 2^(s − 127) of OCP Microscaling Formats (MX) Specification 1.0, as gpt-oss stores them.

    The byte 0x2A with the scale 126 holds −0.5 and 0.5. The stored order is [experts, out, blocks, 16 bytes], while
    the model multiplies by [experts, in, out]. Exact in float32 and bfloat16.
    """

    required: ClassVar[frozenset[str]] = frozenset(ENDS)
    optional: ClassVar[frozenset[str]] = frozenset()

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [experts, in, out] of blocks [experts, out, in / 32, 16]."""
        experts, outputs, blocks, octets = parts.shape("_blocks", "U8", sides=4)
        if octets != 16:
            raise parts.refused("_blocks", f"has blocks of {octets} bytes, this format has 16")
        parts.expect("_scales", "U8", shape=(experts, outputs, blocks))
        return experts, blocks * 32, outputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return the weights, float32 [experts, in, out]."""
        scales, blocks = powers_of_two(parts.read("_scales")), parts.read("_blocks")
        experts, outputs, count, _ = blocks.shape
        weight = fresh_memory.empty(experts, count * 32, outputs)
        for number in range(experts):  # one expert at a time, since the layer is large
            weight[number] = from_octets(blocks[number].flatten(1), e2m1_pairs(), scales[number], (1, 32)).T
        return weight


@dataclass(frozen=True)
class Mxfp4:
    """A quantization_config with quant_method "mxfp4".

    Attributes:
        plain: parts of the names of modules that are not quantised.
    """

    plain: tuple[str, ...]
    words: str = "MXFP4: FP4 (E2M1) in groups of 32, each with a power of two"
    dtype: str = "MXFP4"
    ends: ClassVar[tuple[str, ...]] = ENDS
    plain_end: ClassVar[str] = ""
    activations: ClassVar[tuple[str, ...]] = ()
    names_all: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Settings) -> Mxfp4:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key is not known.
        """
        plain = settings.words("modules_to_not_convert")
        settings.pass_over("dequantize")
        settings.finish()
        return cls(plain)

    def layout(self, module: str) -> Mxfp4Layout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        return None if stands_in(module, self.plain) else Mxfp4Layout()
