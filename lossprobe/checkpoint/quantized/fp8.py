"""Fine-grained FP8: weights in E4M3 with a scale for each block, as DeepSeek and Qwen publish them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from lossprobe.checkpoint.quantized.names import stands_in
from lossprobe.checkpoint.quantized.parts import FLOATS, stored_as, weights_only
from lossprobe.checkpoint.quantized.scaled import FP8, ScaledLayout
from lossprobe.checkpoint.quantized.settings import Settings

ACTIVATIONS: Final = (".input_scale", ".activation_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")


@dataclass(frozen=True)
class Fp8:
    """A quantization_config with quant_method "fp8".

    Attributes:
        base: the layout of all quantised modules.
        plain: parts of the names of modules that are not quantised.
        scheme: "dynamic" or "static": how the deployed kernel finds the scales of activations.
        cache: to what the deployed model rounds its key-value cache; "" where it does not.
    """

    base: ScaledLayout
    plain: tuple[str, ...]
    scheme: str
    cache: str = ""
    dtype: str = stored_as("FP8", "fine-grained", "FP8")
    ends: ClassVar[tuple[str, ...]] = (".weight", ".weight_scale_inv", ".weight_scale")
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = ACTIVATIONS
    names_all: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Settings) -> Fp8:
        """Return what a quantization_config says; without block sizes there is one scale a tensor, or one a row.

        Raises:
            CheckpointError: a key or a value is not known.
        """
        settings.choose("fmt", ("e4m3",), "e4m3")
        settings.choose("scale_fmt", ("float", "ue8m0"), "float")
        settings.choose("expert_dtype", ("fp8",), "fp8")
        scheme = settings.choose("activation_scheme", ("dynamic", "static"), "dynamic")
        sizes = settings.take("weight_block_size", list, [])
        if sizes and not (len(sizes) == 2 and all(type(size) is int and size > 0 for size in sizes)):
            raise settings.refused("weight_block_size", f"is {sizes}, not two sizes")
        plain = settings.words("modules_to_not_convert", "ignored_layers")
        settings.pass_over("dequantize", "modules_to_convert")
        cache = settings.cache_rounding()
        settings.finish()
        if sizes:
            base = ScaledLayout(FP8, ".weight_scale_inv", (sizes[0], sizes[1]), (*FLOATS, "F8_E8M0"))
        else:
            base = ScaledLayout(FP8, ".weight_scale", (0, 0), bare=True)
        return cls(base, plain, scheme, cache)

    @property
    def words(self) -> str:
        """The format in plain words."""
        rows, columns = self.base.block
        size = f"with a scale for {rows} x {columns} weights" if rows else "with a scale for each tensor"
        return f"FP8 (E4M3) {size}{weights_only(f'FP8 ({self.scheme})', self.cache)}"

    def layout(self, module: str) -> ScaledLayout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        return None if stands_in(module, self.plain) else self.base
