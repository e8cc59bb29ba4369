"""bitsandbytes: 4-bit codes of a table (NF4, FP4) in blocks, and 8-bit integers with a scale a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from lossprobe.checkpoint.quantized.codes import finite, from_octets
from lossprobe.checkpoint.quantized.names import stands_in
from lossprobe.checkpoint.quantized.parts import Layout, Parts, stored_as, weights_only
from lossprobe.checkpoint.quantized.settings import Settings

# NF4: quantiles of the normal distribution, Dettmers et al. 2023, QLoRA, appendix E.
NF4: Final = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# FP4 of bitsandbytes, which is not E2M1: twelfths of these, with a sign.
FP4: Final = tuple(sign * value / 12 for sign in (1, -1) for value in (0, 0.0625, 8, 12, 4, 6, 2, 3))
TABLES: Final[Mapping[str, tuple[float, ...]]] = {"nf4": NF4, "fp4": FP4}
LARGEST_STATE = 4096  # bytes of the JSON that describes a 4-bit weight; it has about 150
FLAT = (".weight.absmax", ".weight.quant_map")
NESTED = (".weight.nested_absmax", ".weight.nested_quant_map")
STATE = ".weight.quant_state.bitsandbytes__"


@dataclass(frozen=True)
class FourBitLayout:
    """Weights table[q] · absmax (bitsandbytes.functional, `dequantize_4bit`).

    The first of the two codes of a byte is the **high** half. In NF4 the byte 0xF7 with absmax 2 holds 2.0 and 0.0.
    With nested quantisation absmax itself is table2[q] · absmax2 + offset, in blocks of its own.

    Attributes:
        kind: "nf4" or "fp4".
        nested: whether absmax is quantised too.
    """

    kind: str
    nested: bool
    optional: ClassVar[frozenset[str]] = frozenset()

    @property
    def state_end(self) -> str:
        """End of the name of the tensor with the bytes of a JSON object that says shape and block sizes."""
        return STATE + self.kind

    @property
    def required(self) -> frozenset[str]:
        """Ends of the names of the tensors that there must be."""
        return frozenset((".weight", self.state_end, *FLAT, *(NESTED if self.nested else ())))

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return the shape that the JSON object states."""
        state = self._state(parts)
        count = 1
        for side in state["shape"]:
            count *= side
        octets = parts.shape(".weight", "U8")
        if octets not in ((-(-count // 2), 1), (1, -(-count // 2))):
            raise parts.refused(
                ".weight", f"has shape {list(octets)}, {list(state['shape'])} weights need {-(-count // 2)} bytes"
            )
        blocks = -(-count // state["blocksize"])
        parts.expect(".weight.quant_map", "F32", shape=(16,))
        parts.expect(".weight.absmax", "U8" if self.nested else "F32", shape=(blocks,))
        if self.nested:
            parts.expect(".weight.nested_quant_map", "F32", shape=(256,))
            parts.expect(".weight.nested_absmax", "F32", shape=(-(-blocks // state["nested_blocksize"]),))
        return tuple(state["shape"])

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return the weights, float32."""
        state = self._state(parts)
        table = parts.read(".weight.quant_map")
        if not torch.allclose(table, torch.tensor(TABLES[self.kind]), rtol=0, atol=1e-6):
            raise parts.refused(".weight.quant_map", f"holds another table than that of {self.kind}")
        absmax = parts.read(".weight.absmax")
        if self.nested:
            code = parts.read(".weight.nested_quant_map")[absmax.int()]
            absmax = _in_blocks(code, parts.read(".weight.nested_absmax"), state["nested_blocksize"])
            absmax += state["nested_offset"]
        shape: tuple[int, ...] = tuple(state["shape"])
        count, size = torch.Size(shape).numel(), state["blocksize"]
        pairs = torch.stack([table.repeat_interleave(16), table.repeat(16)], 1)
        whole = count % (2 * size) == 0
        rows = len(absmax) // math.gcd(len(absmax), 64) if whole else 1  # short rows stay in the cache
        weight = from_octets(parts.read(".weight").view(rows, -1), pairs, absmax.view(rows, -1), (1, size))
        return weight.flatten()[:count].view(shape)

    def _state(self, parts: Parts) -> dict[str, Any]:
        """Return the JSON object, after checking its keys and types."""
        (size,) = parts.shape(self.state_end, "U8", sides=1)
        if size > LARGEST_STATE:
            raise parts.refused(self.state_end, f"has {size} bytes")
        try:
            state = json.loads(bytes(parts.read(self.state_end).tolist()))
        except (ValueError, RecursionError):
            raise parts.refused(self.state_end, "holds no JSON") from None
        counts = {"blocksize": int} | ({"nested_blocksize": int, "nested_offset": float} if self.nested else {})
        nested = {"nested_dtype": str} if self.nested else {}
        kinds: dict[str, type] = counts | nested | {"quant_type": str, "dtype": str, "shape": list}
        if not isinstance(state, dict) or {key: type(value) for key, value in state.items()} != kinds:
            raise parts.refused(self.state_end, f"holds other keys than {', '.join(kinds)}")
        sides = state["shape"]
        sizes = [*sides, *(state[key] for key, kind in counts.items() if kind is int)]
        if state["quant_type"] != self.kind or not sides or not all(type(n) is int and 0 < n < 1 << 40 for n in sizes):
            raise parts.refused(self.state_end, "contradicts its name, or states sizes that no weight has")
        return state


def _in_blocks(values: torch.Tensor, scales: torch.Tensor, size: int) -> torch.Tensor:
    """Multiply blocks of flat values by their scales, in place, and return the values; the last may be shorter."""
    whole = len(values) // size
    values[: whole * size].view(whole, size).mul_(scales[:whole, None])
    values[whole * size :].mul_(scales[-1])
    return values


@dataclass(frozen=True)
class EightBitLayout:
    """Weights q · SCB / 127 of LLM.int8() (bitsandbytes.functional, `int8_vectorwise_dequant`).

    127 with SCB 0.5 is 0.5. As the library does, q · SCB is multiplied by 7.874015718698502e-3, all in float32.
    """

    required: ClassVar[frozenset[str]] = frozenset((".weight", ".SCB"))
    optional: ClassVar[frozenset[str]] = frozenset((".weight_format",))

    def shape(self, parts: Parts) -> tuple[int, ...]:
        """Return [out, in] of the weight."""
        outputs, inputs = parts.shape(".weight", "I8")
        parts.expect(".SCB", "F32", shape=(outputs,))
        return outputs, inputs

    def weight(self, parts: Parts) -> torch.Tensor:
        """Return q · SCB / 127, float32 [out, in]."""
        if ".weight_format" in parts.entries and parts.read(".weight_format").any():
            raise parts.refused(
                ".weight_format", "says that rows are in the order of a GPU kernel, 0 is the plain order"
            )
        scale = parts.read(".SCB")[:, None]
        return finite(parts.read(".weight").float().mul_(scale).mul_(7.874015718698502e-3))


@dataclass(frozen=True)
class BitsAndBytes:
    """A quantization_config with quant_method "bitsandbytes".

    Attributes:
        base: the layout of all quantised modules.
        plain: parts of the names of modules that are not quantised; by default the output matrix.
    """

    base: FourBitLayout | EightBitLayout
    plain: tuple[str, ...]
    ends: ClassVar[tuple[str, ...]] = (
        ".weight", ".SCB", ".weight_format", *FLAT, *NESTED, STATE + "nf4", STATE + "fp4",
    )  # fmt: skip
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = ()
    names_all: ClassVar[bool] = True

    @classmethod
    def read(cls, settings: Settings) -> BitsAndBytes:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key or a value is not known.
        """
        eight = settings.take("load_in_8bit", bool, settings.take("_load_in_8bit", bool, False))
        four = settings.take("load_in_4bit", bool, settings.take("_load_in_4bit", bool, False))
        kind = settings.choose("bnb_4bit_quant_type", tuple(TABLES), "fp4")
        nested = settings.take("bnb_4bit_use_double_quant", bool, False)
        if eight == four:
            raise settings.refused("load_in_4bit", "and load_in_8bit: exactly one must be true")
        if four:
            settings.choose("bnb_4bit_quant_storage", ("uint8",), "uint8")
        plain = settings.words("llm_int8_skip_modules") if settings.has("llm_int8_skip_modules") else ("lm_head",)
        settings.none_of("llm_int8_has_fp16_weight")
        settings.pass_over(
            "bnb_4bit_quant_storage", "bnb_4bit_compute_dtype", "llm_int8_threshold", "llm_int8_skip_modules",
            "llm_int8_enable_fp32_cpu_offload",
        )  # fmt: skip
        settings.finish()
        return cls(EightBitLayout() if eight else FourBitLayout(kind, nested), plain)

    @property
    def words(self) -> str:
        """The format in plain words."""
        if isinstance(self.base, EightBitLayout):
            return f"bitsandbytes int8 with a scale for each output{weights_only('int8')}"
        scales = ", scales quantised too" if self.base.nested else ""
        return f"bitsandbytes {self.base.kind.upper()} in blocks{scales}"

    @property
    def dtype(self) -> str:
        """Short name of what is stored."""
        if isinstance(self.base, EightBitLayout):
            return stored_as("int8", "bitsandbytes", "int8")
        return stored_as(self.base.kind.upper(), "bitsandbytes", "")

    def layout(self, module: str) -> Layout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        return None if stands_in(module, self.plain) else self.base
