"""Read the configuration and the headers of a Hugging Face directory, and decide which class builds its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.foreign import refuse_mlx
from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.key_filter import KeyFilter
from lossprobe.checkpoint.files.weight_files import Weights, find_weights
from lossprobe.checkpoint.model.model_config import (
    build_config,
    building,
    causal_model,
    check_size,
    without_other_parts,
)
from lossprobe.checkpoint.model.plain.families import is_plain, plain_model
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.quantized.methods import method_of
from lossprobe.checkpoint.quantized.weights import QuantizedWeights, find_quantized
from lossprobe.units import visible


@dataclass(frozen=True)
class PreparedFolder:
    """A Hugging Face directory whose configuration and headers agree, before its weights are read.

    Attributes:
        path: the directory.
        settings: the content of config.json, without the keys that the user wants ignored.
        ignored: these keys.
        model_class: the class of its language model, transformers' or a plain one.
        config: the configuration to build it from.
        weights: its stored tensors.
        plain: whether the class is a plain one of ours.
    """

    path: Path
    settings: dict[str, Any]
    ignored: KeyFilter
    model_class: Any
    config: Any
    weights: Weights | QuantizedWeights
    plain: bool = False


def prepare(path: Path, options: LoadOptions, *, plain: bool = False) -> PreparedFolder:
    """Return what a directory says, after checking that its files agree.

    Args:
        path: the directory.
        options: as in `open_checkpoint`.
        plain: whether a plain class may stand for transformers'.
    """
    shown = visible(str(path), 200)
    ignored = KeyFilter(options.ignore_config, "config.json")
    settings = _settings(path, ignored)
    weights = _weights(path, settings) if plain and is_plain(settings) else None
    known = plain_model(settings, weights.entries) if isinstance(weights, Weights) else None
    if weights is not None and known is not None:
        return PreparedFolder(path, settings, ignored, *known, weights, plain=True)
    whole = build_config(settings, f"{shown}/config.json")
    weights = weights or _weights(path, settings)
    with building(shown):
        model_class, config = causal_model(whole)
        check_size(settings, config, model_class, weights.entries, f"{shown}/config.json")
        if config is not whole:
            model_class = without_other_parts(model_class, whole)
    return PreparedFolder(path, settings, ignored, model_class, config, weights)


def _weights(path: Path, settings: Mapping[str, Any]) -> Weights | QuantizedWeights:
    """Return the stored tensors of a directory, read as plain ones where config.json says that they are quantised."""
    weights = find_weights(path)
    method, said_by = method_of(path, settings)
    return weights if method is None else find_quantized(path, weights, method, said_by)


def _settings(path: Path, ignored: KeyFilter) -> dict[str, Any]:
    """Return the content of config.json; weights that MLX has quantised, which its key announces, are refused."""
    settings = ignored.removed_from(read_json(path / "config.json"))
    if "quantization" in settings:
        refuse_mlx(path, [name for tensors in find_weights(path).files.values() for name in tensors])
    return settings
