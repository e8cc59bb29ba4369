"""compressed-tensors: the format of llm-compressor and vLLM, with one scheme for each group of modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from lossprobe.checkpoint.quantized.names import compiled
from lossprobe.checkpoint.quantized.nvfp4 import Fp4Layout
from lossprobe.checkpoint.quantized.packed_integers import PackedLayout
from lossprobe.checkpoint.quantized.parts import FLOATS, Layout, stored_as, weights_only
from lossprobe.checkpoint.quantized.scaled import FP8, ScaledLayout
from lossprobe.checkpoint.quantized.settings import Settings, rounding

NAIVE = ("int-quantized", "float-quantized", "naive-quantized")
FORMATS: Final = ("pack-quantized", *NAIVE, "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized")
STRATEGIES: Final = ("tensor", "channel", "group", "block", "tensor_group")
ENDS = (
    ".weight", ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx",
    ".weight_global_scale",
)  # fmt: skip
ACTIVATIONS = (
    ".input_scale", ".input_zero_point", ".input_global_scale", ".output_scale", ".output_zero_point",
    ".q_scale", ".k_scale", ".v_scale", ".q_zero_point", ".k_zero_point", ".v_zero_point",
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """The "weights" of a scheme: how its numbers are rounded."""

    bits: int
    kind: str
    symmetric: bool
    strategy: str
    group_size: int
    block: tuple[int, int]
    by_activation: bool

    @classmethod
    def read(cls, settings: Settings) -> Weights:
        """Return what a scheme says of its weights; what says how the quantiser worked is left out."""
        bits, kind = settings.choose("num_bits", range(1, 9), 8), settings.choose("type", ("int", "float"), "int")
        size = settings.take("group_size", int, 0)
        inferred = "tensor" if size == 0 else "channel" if size == -1 else "group"
        strategy = settings.choose("strategy", STRATEGIES, inferred)
        block = settings.take("block_structure", list, [0, 0])
        if len(block) != 2 or not all(type(side) is int and side >= 0 for side in block):
            raise settings.refused("block_structure", f"is {block}, not two sizes")
        if ("group" in strategy and size < 1) or (strategy == "block" and 0 in block):
            raise settings.refused("strategy", f"is {strategy}, but no size is given")
        order = settings.choose("actorder", ("group", "dynamic", "weight", "static", False), False)
        made = cls(
            bits, kind, settings.take("symmetric", bool, True), strategy, size, (block[0], block[1]),
            order in ("group", "dynamic"),
        )  # fmt: skip
        settings.none_of("dynamic")
        settings.pass_over("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
        settings.finish()
        return made

    @property
    def words(self) -> str:
        """The rounding in plain words, such as "int4 in groups of 128, asymmetric"."""
        places = {
            "tensor": "with a scale for each tensor",
            "channel": "with a scale for each output",
            "group": f"in groups of {self.group_size}",
            "tensor_group": f"in groups of {self.group_size}",
            "block": f"in blocks of {self.block[0]} x {self.block[1]}",
        }
        symmetry = "" if self.kind == "float" else ", symmetric" if self.symmetric else ", asymmetric"
        order = ", groups by activation" if self.by_activation else ""
        return f"{self.name} {places[self.strategy]}{symmetry}{order}"

    @property
    def name(self) -> str:
        """The numbers in one word, such as "int4" or "NVFP4"."""
        standard = {(4, 16): "NV", (4, 32): "MX", (8, 32): "MX"}.get((self.bits, self.group_size), "")
        return f"int{self.bits}" if self.kind == "int" else f"{standard}FP{self.bits}"

    def layout(self, form: str) -> Layout | None:
        """Return how weights are stored in a format; None where the format cannot store them."""
        if form == "pack-quantized" and self.kind == "int" and self.strategy in ("tensor", "channel", "group"):
            sizes = {"tensor": -1, "channel": 0, "group": self.group_size}
            return PackedLayout(self.bits, self.symmetric, sizes[self.strategy], self.by_activation)
        if form == "nvfp4-pack-quantized" and (self.kind, self.bits, self.group_size) == ("float", 4, 16):
            return Fp4Layout(".weight_packed", ".weight_global_scale", divides=True)
        if form == "mxfp4-pack-quantized" and (self.kind, self.bits, self.group_size) == ("float", 4, 32):
            return Fp4Layout(".weight_packed", "", divides=False, group_size=32)
        if form in (*NAIVE, "mxfp8-quantized") and self.bits == 8 and not self.by_activation:
            blocks = {"tensor": (0, 0), "channel": (1, 0), "group": (1, self.group_size), "block": self.block}
            stored, scales = FP8 if self.kind == "float" else "I8", FLOATS if form in NAIVE else ("U8", "F8_E8M0")
            zero = "" if self.symmetric else ".weight_zero_point"
            return ScaledLayout(stored, ".weight_scale", blocks[self.strategy], scales, zero, bare=True)
        return None


@dataclass(frozen=True)
class Scheme:
    """One of the `config_groups`.

    Attributes:
        names: module names that it is for.
        patterns: expressions that match the start of module names it is for.
        classes: names of classes that it is for, such as "Linear".
        weights: how weights are rounded.
        layout: how they are stored.
        activations: how the deployed kernel rounds activations, such as "int8"; "" where it does not.
    """

    names: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...]
    classes: tuple[str, ...]
    weights: Weights
    layout: Layout
    activations: str

    @classmethod
    def read(cls, settings: Settings, form: str) -> Scheme:
        """Return one of the `config_groups` that has weights."""
        targets = settings.words("targets")
        own = settings.choose("format", FORMATS, form)
        activations = _joined(_rounded(settings, side) for side in ("input", "output"))
        weights = Weights.read(settings.inner("weights"))
        layout = weights.layout(own)
        settings.finish()
        if layout is None:
            raise settings.refused("format", f"is {own}, which does not store {weights.words}")
        patterns = tuple(
            compiled(target.removeprefix("re:"), settings.shown) for target in targets if target.startswith("re:")
        )
        names = tuple(target for target in targets if "." in target and not target.startswith("re:"))
        classes = tuple(target for target in targets if "." not in target and not target.startswith("re:"))
        return cls(names, patterns, classes, weights, layout, activations)

    def names_module(self, module: str) -> bool:
        """Return whether a module is named, and not only its class."""
        own = module in self.names or module.split(".")[-1] in self.classes
        return own or any(pattern.match(module) for pattern in self.patterns)


def _rounded(settings: Settings, side: str) -> str:
    """Return how the deployed kernel rounds what goes into the modules of a group, or what comes out of them."""
    said = settings.take(f"{side}_activations", dict, {})
    return rounding({"num_bits": 8} | said if said else None)


def _joined(kinds: Iterable[str]) -> str:
    """Return the names of numbers without repeats, such as "int8 or FP8"; "" for none."""
    return " or ".join(dict.fromkeys(filter(None, kinds)))


@dataclass(frozen=True)
class CompressedTensors:
    """A quantization_config with quant_method "compressed-tensors".

    Attributes:
        schemes: the groups of modules that are quantised.
        plain: names and classes of modules that are not quantised.
        plain_patterns: expressions that match the start of names of such modules.
        attention: to what the deployed kernel rounds what goes into modules that groups without weights name.
        cache: to what it rounds its key-value cache. "" where it does not, as `attention`.
    """

    schemes: tuple[Scheme, ...]
    plain: tuple[str, ...]
    plain_patterns: tuple[re.Pattern[str], ...]
    attention: str
    cache: str
    ends: ClassVar[tuple[str, ...]] = ENDS
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = ACTIVATIONS
    names_all: ClassVar[bool] = True

    @classmethod
    def read(cls, settings: Settings) -> CompressedTensors:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key or a value is not known, or the format is another one.
        """
        form = settings.choose("format", (*FORMATS, "mixed-precision"))
        settings.choose("quantization_status", ("compressed",), "compressed")
        ignore = settings.words("ignore")
        groups = settings.inner("config_groups")
        found = [groups.inner(name) for name in groups.left]
        others = [each for each in found if not each.has("weights")]  # of attention, or of its keys and values alone
        schemes = tuple(Scheme.read(each, form) for each in found if each.has("weights"))
        if not schemes:
            raise settings.refused("config_groups", "names no weights")
        sparsity = settings.take("sparsity_config", dict, {})
        if sparsity.get("format", "dense") != "dense":
            raise settings.refused("sparsity_config", f"has the format {sparsity['format']}, which is not supported")
        settings.none_of("transform_config", "moe_sparsity_config")
        settings.pass_over(
            "global_compression_ratio", "version", "run_compressed", "dequantize", "use_optimized_inference"
        )
        attention, kept = (_joined(_rounded(each, side) for each in others) for side in ("input", "output"))
        cache = settings.cache_rounding() or kept
        settings.finish()
        patterns = tuple(compiled(key.removeprefix("re:"), settings.shown) for key in ignore if key.startswith("re:"))
        return cls(schemes, tuple(key for key in ignore if not key.startswith("re:")), patterns, attention, cache)

    @property
    def words(self) -> str:
        """The format in plain words."""
        kinds = " and ".join(dict.fromkeys(scheme.weights.words for scheme in self.schemes))
        return f"compressed-tensors, {kinds}{weights_only(self._rounded, self.cache)}"

    @property
    def dtype(self) -> str:
        """Short name of what is stored."""
        kinds = dict.fromkeys(scheme.weights.name for scheme in self.schemes)
        return stored_as(" and ".join(kinds), "compressed-tensors", self._rounded or self.cache)

    @property
    def _rounded(self) -> str:
        """To what the deployed kernel rounds activations; "" where it does not."""
        return _joined([*(scheme.activations for scheme in self.schemes), self.attention])

    def layout(self, module: str) -> Layout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        scheme = self._scheme(module)
        return None if scheme is None else scheme.layout

    def _scheme(self, module: str) -> Scheme | None:
        """Return the scheme of a linear layer: one that names it before one that names its class."""
        if module in self.plain or "Linear" in self.plain or any(each.match(module) for each in self.plain_patterns):
            return None
        named = (scheme for scheme in self.schemes if scheme.names_module(module))
        by_class = (scheme for scheme in self.schemes if "Linear" in scheme.classes)
        return next(named, None) or next(by_class, None)
