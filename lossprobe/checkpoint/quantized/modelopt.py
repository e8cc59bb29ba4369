"""NVIDIA ModelOpt: FP8 with one scale a tensor, and NVFP4."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from lossprobe.checkpoint.quantized.names import wildcard
from lossprobe.checkpoint.quantized.nvfp4 import Fp4Layout
from lossprobe.checkpoint.quantized.parts import Layout, stored_as, weights_only
from lossprobe.checkpoint.quantized.scaled import FP8, ScaledLayout
from lossprobe.checkpoint.quantized.settings import Settings

ALGORITHMS: Final[Mapping[str, Layout]] = {
    "fp8": ScaledLayout(FP8, ".weight_scale", (0, 0), ("F32",), bare=True),
    "fp8_per_channel_per_token": ScaledLayout(FP8, ".weight_scale", (1, 0), ("F32",), bare=True),
    "nvfp4": Fp4Layout(".weight", ".weight_scale_2", divides=False),
}
WORDS: Final = {
    "fp8": "FP8 (E4M3) with a scale for each tensor",
    "fp8_per_channel_per_token": "FP8 (E4M3) with a scale for each output",
    "nvfp4": "NVFP4: FP4 (E2M1) in groups of 16",
}


@dataclass(frozen=True)
class ModelOpt:
    """A quantization_config with quant_method "modelopt", or a hf_quant_config.json.

    Attributes:
        algorithm: "fp8", "fp8_per_channel_per_token" or "nvfp4".
        cache: to what the deployed model rounds its key-value cache; "" where it does not.
        plain: patterns of the names of modules that are not quantised.
    """

    algorithm: str
    plain: tuple[re.Pattern[str], ...]
    cache: str
    ends: ClassVar[tuple[str, ...]] = (".weight", ".weight_scale", ".weight_scale_2")
    plain_end: ClassVar[str] = ".weight"
    activations: ClassVar[tuple[str, ...]] = (".input_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
    names_all: ClassVar[bool] = True

    @classmethod
    def read(cls, settings: Settings) -> ModelOpt:
        """Return what a quantization_config says.

        Raises:
            CheckpointError: a key or a value is not known.
        """
        algorithm = settings.choose("quant_algo", tuple(ALGORITHMS))
        size = settings.take("group_size", int, 16)
        if algorithm == "nvfp4" and size != 16:
            raise settings.refused("group_size", f"is {size}, NVFP4 has 16")
        plain = settings.words("ignore", "exclude_modules")
        settings.none_of("has_zero_point", "pre_quant_scale", "quantized_layers")
        # `config_groups` says the same as `quant_algo`, in the words of compressed-tensors.
        settings.pass_over("config_groups", "producer")
        cache = settings.cache_rounding()
        settings.finish()
        return cls(algorithm, tuple(wildcard(key, settings.shown) for key in plain), cache)

    @classmethod
    def from_file(cls, content: Mapping[str, Any], shown: str) -> ModelOpt:
        """Return what a hf_quant_config.json says, which lies beside the config.json of older exports."""
        outer = Settings(content, shown)
        inner = outer.inner("quantization")
        outer.pass_over("producer")
        outer.finish()
        return cls.read(inner)

    @property
    def words(self) -> str:
        """The format in plain words."""
        return f"ModelOpt {WORDS[self.algorithm]}{weights_only(self._kind, self.cache)}"

    @property
    def dtype(self) -> str:
        """Short name of what is stored."""
        return stored_as(f"NV{self._kind}" if self._kind == "FP4" else self._kind, "ModelOpt", self._kind)

    @property
    def _kind(self) -> str:
        """Numbers to which the deployed kernel rounds activations."""
        return "FP4" if self.algorithm == "nvfp4" else "FP8"

    def layout(self, module: str) -> Layout | None:
        """Return how the weight of a module is stored; None where it is plain."""
        parts = module.split(".")
        holders = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        plain = any(pattern.fullmatch(holder) for pattern in self.plain for holder in holders)
        return None if plain else ALGORITHMS[self.algorithm]
