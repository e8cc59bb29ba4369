"""Read the sizes and numbers that the keys of a GGUF file state for its architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.gguf.header import GGUFHeader
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

# Keys that say nothing about what the model computes, or what is read otherwise.
TOLD = re.compile(r"(general|tokenizer|split|quantize)\..*|.*\.(vocab_size|context_length)")


def not_mapped(path: Path, what: str) -> CheckpointError:
    """Return the error for what `dequantize` does not map."""
    return refusal("gguf.not_mapped", path, what, hint="leave out `dequantize`: llama.cpp itself runs it")


class KeySizes:
    """The keys of an architecture, read by their names without it."""

    def __init__(self, header: GGUFHeader, name: str) -> None:
        self.header, self.path, self._name = header, header.path, name

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number above zero."""
        value = self.header.number(f"{self._name}.{key}", default)
        if not 1 <= value <= 1 << 24:
            raise refusal("checkpoint.bad_config", self.path, f"{self._name}.{key} is {value}")
        return value

    def real(self, key: str, default: float) -> float:
        """Return a number."""
        value = self.header.keys.get(f"{self._name}.{key}", default)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise refusal("checkpoint.bad_config", self.path, f"{self._name}.{key} is no number")
        return float(value)

    def has(self, key: str) -> bool:
        """Return whether the header has a key."""
        return f"{self._name}.{key}" in self.header.keys

    def text(self, key: str) -> str:
        """Return a text, "" without it."""
        return self.header.text(f"{self._name}.{key}")

    def refuse_unknown_keys(self, known: Collection[str]) -> None:
        """Refuse keys that are neither known nor say nothing about what the model computes."""
        names = {f"{self._name}.{key}" for key in known}
        unknown = [key for key in self.header.keys if key not in names and not TOLD.fullmatch(key)]
        if unknown:
            raise not_mapped(self.path, f"keys that are not mapped: {listed(sorted(unknown))}")

    @property
    def head(self) -> int:
        """Width of a head."""
        width = self.whole("embedding_length") // self.whole("attention.head_count")
        size = self.whole("attention.key_length", width)
        turned = self.whole("rope.dimension_count", size)
        if self.whole("attention.value_length", size) != size or turned != size:
            what = f"heads of {size} of which {turned} turn, values of {self.whole('attention.value_length', size)}"
            raise not_mapped(self.path, f"{what}: only equal sizes are mapped")
        return size

    def rope(self) -> dict[str, Any]:
        """Return transformers' rope_parameters.

        Raises:
            CheckpointError: a scaling that is not mapped.
        """
        found: dict[str, Any] = {"rope_type": "default", "rope_theta": self.real("rope.freq_base", 10000.0)}
        kind = self.text("rope.scaling.type") or "none"
        if kind == "none":
            return found
        if kind == "linear":
            return found | {"rope_type": "linear", "factor": self.real("rope.scaling.factor", 1.0)}
        if kind == "yarn" and self.has("rope.scaling.factor") and self.has("rope.scaling.original_context_length"):
            length = self.whole("rope.scaling.original_context_length")
            scaled = {"rope_type": "yarn", "original_max_position_embeddings": length}
            return found | scaled | {"factor": self.real("rope.scaling.factor", 1.0)}
        raise not_mapped(self.path, f"rope.scaling.type {visible(kind, 40)}")
