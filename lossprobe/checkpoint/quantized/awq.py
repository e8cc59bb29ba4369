"""AWQ: 4-bit integers in groups along the inputs, in the order that AutoAWQ's GEMM kernel reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import torch

from lossprobe.checkpoint.quantized.codes import from_columns
from lossprobe.checkpoint.quantized.gptq import WORK
from lossprobe.checkpoint.quantized.names import stands_in
from lossprobe.checkpoint.quantized.parts import FLOATS, Parts
from lossprobe.checkpoint.quantized.settings import Settings

BITS = 4
# By how many bits the codes of columns 0, 1, ... 7 lie above the lowest of a word: column 1 is code 4, column 2 code 1
# (awq.utils.packing_utils, AWQ_REVERSE_ORDER).
SHIFTS: Final = tuple(BITS * place for place in (0, 4, 1, 5, 2, 6, 3, 7))
ENDS: Final = (".qweight", ".qzeros", ".scales")


@dataclass(frozen=True)
class AwqLayout:
    """Weights (q − z) · s of AutoAWQ, version GEMM (awq.utils.packing_utils, `dequantize_gemm`).

    A code 9 with a zero point 8 and a scale 0.5 stands for 0.5. The products are exact in float32.

    Attributes:
        group_size: inputs of a group; −1 for all in one.
    """

    group_size: int
    required: ClassVar[frozenset[str]] = frozenset(ENDS)
    optional: ClassVar[frozenset[str]] = frozenset()

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in] of qweight [in, out / 8]."""
        inputs, words = parts.shape(".qweight", "I32")
        size = inputs if self.group_size == -1 else self.group_size
        groups = parts.groups_of(".qweight", inputs, size)
        parts.expect(".qzeros", "I32", shape=(groups, words))
        parts.expect(".scales", *FLOATS, shape=(groups, words * 8))
        return words * 8, inputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return (q − z) · s, float32 [out, in]."""
        words = parts.read(".qzeros")  # in the order of the weight, as if each group were an input
        one = torch.ones(words.shape[1] * 8, 1)
        zeros = from_columns(words, SHIFTS, torch.zeros_like(one), one)
        return from_columns(parts.read(".qweight"), SHIFTS, zeros, parts.read(".scales").float().T)


@dataclass(frozen=True)
class Awq:
    """A quantization_config of AutoAWQ or GPTQModel.

    Attributes:
        base: the layout of all quantised modules.
        symmetric: whether the configuration says that the zero points are all in the middle.
        plain: parts of the names of modules that are not quantised.
    """

    base: AwqLayout
    symmetric: bool
    plain: tuple[str, ...]
    dtype: str = "int4 (AWQ)"
    ends: ClassVar[tuple[str, ...]] = ENDS
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = ()
    names_all: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Settings) -> Awq:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key or a value is not known, or asks for the order of another kernel (GEMV, Marlin).
        """
        for key in ("version", "format", "checkpoint_format"):
            settings.choose(key, ("gemm",), "gemm")
        settings.choose("method", ("awq",), "awq")
        settings.choose("bits", (BITS,), settings.choose("w_bit", (BITS,), BITS))
        settings.choose("pack_dtype", ("int32",), "int32")
        size = settings.take("group_size", int, settings.take("q_group_size", int, 128))
        if size != -1 and size < 1:
            raise settings.refused("group_size", f"is {size}")
        zero_point = settings.take("zero_point", bool, True)
        symmetric = settings.take("sym", bool, not zero_point)
        plain = settings.words("modules_to_not_convert")
        head = () if settings.take("lm_head", bool, False) else ("lm_head",)
        settings.none_of("dynamic", "rotation", "adapter", "desc_act", "modules_to_fuse")
        settings.pass_over("do_fuse", "fuse_max_seq_len", *WORK)
        settings.finish()
        return cls(AwqLayout(size), symmetric, (*plain, *head))

    @property
    def words(self) -> str:
        """The format in plain words."""
        size = "one group a row" if self.base.group_size == -1 else f"groups of {self.base.group_size}"
        return f"AWQ, int4 in {size}, {'' if self.symmetric else 'a'}symmetric"

    def layout(self, module: str) -> AwqLayout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        return None if stands_in(module, self.plain) else self.base
