"""Which format a quantization_config is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.files.json_file import read_json
from lossprobe.checkpoint.files.plain_files import stands
from lossprobe.checkpoint.quantized.awq import Awq
from lossprobe.checkpoint.quantized.bitsandbytes import BitsAndBytes
from lossprobe.checkpoint.quantized.compressed_tensors import CompressedTensors
from lossprobe.checkpoint.quantized.fp8 import Fp8
from lossprobe.checkpoint.quantized.gptq import Gptq
from lossprobe.checkpoint.quantized.modelopt import ModelOpt
from lossprobe.checkpoint.quantized.mxfp4 import Mxfp4
from lossprobe.checkpoint.quantized.parts import Method
from lossprobe.checkpoint.quantized.settings import Settings
from lossprobe.errors import CheckpointError
from lossprobe.units import visible

KEY = "quantization_config"
METHODS: Final[Mapping[str, Callable[[Settings], Method]]] = {
    "awq": Awq.read,
    "bitsandbytes": BitsAndBytes.read,
    "compressed-tensors": CompressedTensors.read,
    "fp8": Fp8.read,
    "gptq": Gptq.read,
    "modelopt": ModelOpt.read,
    "mxfp4": Mxfp4.read,
}
# Files of older exports, which lie beside a config.json without the key.
BESIDE: Final[Mapping[str, Callable[[Mapping[str, Any], str], Method]]] = {
    "hf_quant_config.json": ModelOpt.from_file,
    "quantize_config.json": Gptq.from_file,
}


def method_of(path: Path, settings: Mapping[str, Any]) -> tuple[Method | None, tuple[Path, ...]]:
    """Return what a folder says about quantised weights, and which files beside config.json say it.

    Args:
        path: the folder.
        settings: the content of its config.json.

    Raises:
        CheckpointError: the method, a key or a value is not known.
    """
    inner = (value for value in settings.values() if isinstance(value, dict))  # of the language model of a larger one
    said = [each[KEY] for each in (settings, *inner) if each.get(KEY)]
    shown = f"{visible(str(path / 'config.json'), 200)}: {KEY}"
    if len(said) > 1:
        raise CheckpointError("checkpoint.quantized_config", f"{shown}: is there {len(said)} times")
    if not said:
        for name, from_file in BESIDE.items():
            if stands(path / name):
                return from_file(read_json(path / name), visible(str(path / name), 200)), (path / name,)
        return None, ()
    (content,) = said
    if not isinstance(content, dict):
        raise CheckpointError("checkpoint.quantized_config", f"{shown}: is no object")
    keys = Settings(content, shown)
    method = keys.take("quant_method", str, "bitsandbytes" if "load_in_4bit" in content else None)
    if method not in METHODS:
        raise CheckpointError(
            "checkpoint.quantized",
            f"{shown}: quant_method {visible(method, 40)} is not supported",
            hint=f"known: {', '.join(METHODS)}; for another one give the model that it was made from, or dequantise it",
        )
    return METHODS[method](keys), ()
