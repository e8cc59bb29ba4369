"""Measure stored tensors and models: dtypes, numbers of weights, tied heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lossprobe.checkpoint.files.constants import CONSTANT_NAME
from lossprobe.checkpoint.files.safetensors_file import TensorEntry
from lossprobe.checkpoint.model.exact_load import STORED_DTYPES


def stored_dtype(entries: Mapping[str, TensorEntry]) -> str:
    """Return the dtype that holds most elements of the stored weights, by torch's name such as "float16"."""
    sizes: dict[str, int] = {}
    weights = {name: entry for name, entry in entries.items() if CONSTANT_NAME.fullmatch(name) is None}
    for entry in (weights or entries).values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + _numel(entry)
    code = max(sorted(sizes), key=lambda dtype: sizes[dtype])
    return STORED_DTYPES.get(code, code.lower())


def tied_head(model: Any) -> bool | None:
    """Return whether head and embedding share their weights; None when the model has no output matrix."""
    weight = getattr(model.get_output_embeddings(), "weight", None)
    return None if weight is None else weight is model.get_input_embeddings().weight


def parameters_of(model: Any) -> int:
    """Return the number of weights of a model, a tied head counted once."""
    return sum(weight.numel() for weight in model.parameters())


def _numel(entry: TensorEntry) -> int:
    return math.prod(entry.shape)
