"""Compare which layers of a loaded model were stored quantised with what its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.quantized.weights import QuantizedWeights
from lossprobe.units import visible


def check_converted(path: Path, quantized: QuantizedWeights, model: Any, names: Mapping[str, str]) -> None:
    """Refuse linear layers that are plain but should be quantised, and layers that lie the other way round.

    Args:
        path: the checkpoint, for messages.
        quantized: its stored weights.
        model: the loaded model.
        names: name of a stored weight → its name without what training wrappers add.

    Raises:
        CheckpointError: there is such a layer. Layers of GPT-2 hold [in, out], quantised weights are [out, in]: a
            square one would be read the wrong way round.
    """
    base = f"{model.base_model_prefix}."
    kinds = {f"{name}.weight": type(module) for name, module in model.named_modules()}
    kind_of = {name: kinds.get(plain) or kinds.get(base + plain) for name, plain in names.items()}
    for name in quantized.modules:
        if kind_of.get(name) is Conv1D:
            what = f"tensor {visible(name, 120)} is quantised, and layers of this family hold [in, out]: not supported"
            raise refusal("checkpoint.quantized", path, what)
    quantized.refuse_plain({name for name, kind in kind_of.items() if kind is torch.nn.Linear})
