"""GPTQ: integers in groups along the inputs of a layer, each group with a scale and a zero point."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from lossprobe.checkpoint.quantized.codes import from_codes, unpack
from lossprobe.checkpoint.quantized.names import compiled
from lossprobe.checkpoint.quantized.parts import FLOATS, Parts
from lossprobe.checkpoint.quantized.settings import Settings

BITS: Final = (2, 3, 4, 8)
ENDS: Final = (".qweight", ".qzeros", ".scales", ".g_idx")
# What the quantiser did, and with which kernels it wants to run: none of it changes what the stored numbers mean.
WORK = (
    "damp_percent", "damp_auto_increment", "true_sequential", "static_groups", "model_name_or_path", "meta", "dataset",
    "model_file_base_name", "tokenizer", "backend", "use_exllama", "disable_exllama", "exllama_config", "batch_size",
    "use_cuda_fp16", "model_seqlen", "block_name_to_quantize", "module_name_preceding_first_block", "pad_token_id",
    "max_input_length", "cache_block_outputs", "act_group_aware", "mse", "mock_quantization",
    "modules_in_block_to_quantize",
)  # fmt: skip


@dataclass(frozen=True)
class GptqLayout:
    """Weights s · (q − z) of AutoGPTQ and GPTQModel (gptqmodel.nn_modules.qlinear, `PackableQuantLinear`).

    With 4 bits the word 0x00000093 begins with the codes 3 and 9. With a zero point 8 and a scale 0.5 they stand for
    −2.5 and 0.5. Version 1 stores the zero point as 7, version 2 as 8; in version 1 the field for 0 holds the largest
    code. The products are exact in float32.

    Attributes:
        bits: 2, 3, 4 or 8.
        group_size: inputs of a group; −1 for all in one.
        symmetric: whether every zero point is 2^(bits − 1); kernels then do not read the stored ones.
        by_activation: whether `g_idx` gives the group of each input; without it groups lie one after the other.
        version: 1 or 2.
    """

    bits: int
    group_size: int
    symmetric: bool
    by_activation: bool
    version: int
    required: ClassVar[frozenset[str]] = frozenset(ENDS)
    optional: ClassVar[frozenset[str]] = frozenset()

    @property
    def words(self) -> str:
        """The rounding in plain words, such as "int4 in groups of 128, symmetric"."""
        size = "one group a row" if self.group_size == -1 else f"groups of {self.group_size}"
        order = ", groups by activation" if self.by_activation else ""
        return f"int{self.bits} in {size}, {'' if self.symmetric else 'a'}symmetric{order}"

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in] of qweight [in · bits / 32, out]."""
        words, outputs = parts.shape(".qweight", "I32")
        inputs = parts.codes_in(".qweight", words, self.bits)
        groups = 1 if self.group_size == -1 else -(-inputs // self.group_size)
        parts.expect(".scales", *FLOATS, shape=(groups, outputs))
        parts.expect(".qzeros", "I32", shape=(groups, -(-outputs * self.bits // 32)))
        parts.expect(".g_idx", "I32", "I64", shape=(inputs,))
        return outputs, inputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return s · (q − z), float32 [out, in]."""
        scales = parts.read(".scales").float().T.contiguous()
        zeros = self._zeros(parts, len(scales))
        group = self._groups(parts, zeros.shape[1])
        words = parts.read(".qweight").T
        return from_codes(words, self.bits, zeros, scales, words.shape[1] * 32 // self.bits, group)

    def _zeros(self, parts: Parts, outputs: int) -> torch.Tensor:
        """Return the zero points, float32 [out, G]."""
        codes = unpack(parts.read(".qzeros"), self.bits)
        if codes[:, outputs:].any():
            raise parts.refused(".qzeros", f"holds codes beyond its {outputs} columns")
        largest = (1 << self.bits) - 1
        zeros = codes[:, :outputs].int() + (2 - self.version) & largest
        middle = 1 << self.bits - 1
        if self.symmetric and (zeros != middle).any():
            found = int(zeros[zeros != middle][0])
            raise parts.refused(
                ".qzeros",
                f"holds the zero point {found}, but {parts.said_in} says sym, which is {middle} (format version?)",
            )
        return zeros.float().T.contiguous()

    def _groups(self, parts: Parts, groups: int) -> torch.Tensor | None:
        """Return the group of each input, int64 [in], or None where groups of equal size lie one after the other."""
        group = parts.read(".g_idx").long()
        size = len(group) if self.group_size == -1 else self.group_size
        order = torch.arange(len(group)) // size
        if not torch.equal(group.sort().values, order):
            raise parts.refused(".g_idx", f"does not hold each of {groups} groups {size} times")
        if torch.equal(group, order):
            return None if len(group) % size == 0 else group
        if not self.by_activation:
            raise parts.refused(
                ".g_idx", f"gives another order than that of the inputs, but {parts.said_in} says no desc_act"
            )
        return group


@dataclass(frozen=True)
class Gptq:
    """A quantization_config of AutoGPTQ, GPTQModel or optimum.

    Attributes:
        base: the layout of modules that no rule names.
        head: whether the output matrix is quantised too.
        rules: GPTQModel's `dynamic`: an expression → another layout, or None for plain weights; the first that matches
            the start of a module's name counts.
    """

    base: GptqLayout
    head: bool
    rules: tuple[tuple[re.Pattern[str], GptqLayout | None], ...] = ()
    ends: ClassVar[tuple[str, ...]] = ENDS
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = ()
    names_all: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Settings) -> Gptq:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key or a value is not known, or asks for another kernel's order of the numbers.
        """
        known = ("gptq", "gptq_v2")
        form = settings.choose("checkpoint_format", known, settings.choose("format", known, "gptq"))
        settings.choose("method", ("gptq",), "gptq")
        settings.choose("pack_dtype", ("int32",), "int32")
        settings.none_of("is_marlin_format", "rotation", "adapter")
        base = _layout(settings, GptqLayout(0, 0, True, False, known.index(form) + 1))
        head = settings.take("lm_head", bool, False)
        dynamic = settings.inner("dynamic") if settings.has("dynamic") else Settings({}, settings.shown)
        rules = tuple(_rule(dynamic, key, base) for key in dynamic.left)
        settings.pass_over("dynamic", *WORK)
        settings.finish()
        return cls(base, head, rules)

    @classmethod
    def from_file(cls, content: Mapping[str, Any], shown: str) -> Gptq:
        """Return what the quantize_config.json of AutoGPTQ says; older ones do not name the method."""
        settings = Settings(content, shown)
        settings.choose("quant_method", ("gptq",), "gptq")
        return cls.read(settings)

    @property
    def words(self) -> str:
        """The format in plain words."""
        kinds = " and ".join(dict.fromkeys(layout.words for layout in self._layouts))
        return f"GPTQ version {self.base.version}, {kinds}"

    @property
    def dtype(self) -> str:
        """Short name of what is stored."""
        return f"{' and '.join(dict.fromkeys(f'int{layout.bits}' for layout in self._layouts))} (GPTQ)"

    @property
    def _layouts(self) -> list[GptqLayout]:
        """That of modules that no rule names, and those of the rules."""
        return [self.base, *(layout for _, layout in self.rules if layout is not None)]

    def layout(self, module: str) -> GptqLayout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        if module.split(".")[-1] == "lm_head" and not self.head:
            return None
        return next((layout for rule, layout in self.rules if rule.match(module)), self.base)


def _layout(settings: Settings, base: GptqLayout) -> GptqLayout:
    """Return the layout of some settings; what they lack is as in `base`, whose bits are 0 where it must be stated."""
    group_size = settings.take("group_size", int, base.group_size or None)
    if group_size != -1 and group_size < 1:
        raise settings.refused("group_size", f"is {group_size}")
    return GptqLayout(
        bits=settings.choose("bits", BITS, base.bits or None),
        group_size=group_size,
        symmetric=settings.take("sym", bool, base.symmetric),
        by_activation=settings.take("desc_act", bool, base.by_activation),
        version=base.version,
    )


def _rule(dynamic: Settings, key: str, base: GptqLayout) -> tuple[re.Pattern[str], GptqLayout | None]:
    """Return one rule of `dynamic`: "-:EXPRESSION" leaves modules plain, "+:EXPRESSION" gives them other settings."""
    inner: Settings = dynamic.inner(key)
    pattern = compiled(key.removeprefix("-:").removeprefix("+:"), dynamic.shown)
    layout: Any = None if key.startswith("-:") else _layout(inner, base)
    inner.pass_over(*WORK)
    inner.finish()
    return pattern, layout
