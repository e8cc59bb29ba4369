"""Compare the stored tensors of an adapter with those that the model has, by name and shape, in both directions.

peft warns about missing ones, which are then random, and says nothing about surplus ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.files.safetensors_file import scan_header
from lossprobe.checkpoint.files.stored_tensors import StoredTensors
from lossprobe.checkpoint.files.tensors import check_finite
from lossprobe.checkpoint.model.exact_load import STORED_DTYPES
from lossprobe.units import format_count, visible

START: Final = "base_model.model."  # what peft puts before the name of each module of the base
MISFIT: Final = "the adapter belongs to another base or configuration, or its file is not whole"
Tensors = dict[str, torch.Tensor]


def read_adapter(file: Path) -> Tensors:
    """Return the tensors of an adapter, after checking that they are floating-point and finite.

    Raises:
        CheckpointError: the file is damaged, or a tensor is not finite, not floating-point, or not named as peft does.
    """
    entries = scan_header(file)
    narrow = next((name for name, entry in entries.items() if entry.dtype not in STORED_DTYPES), None)
    if narrow is not None:
        kind = f"tensor {visible(narrow, 80)} is stored as {entries[narrow].dtype}"
        raise refusal("adapter.tensor", file, f"{kind}: quantised adapters are not supported")
    other = sorted(name for name in entries if not name.startswith(START))
    if other:
        what = f"{format_count(len(other))} of {format_count(len(entries))} tensors are not named {START}…"
        raise refusal("adapter.tensor", file, f"{what}: {listed(other)}", hint="save the adapter with peft")
    with StoredTensors({file: entries}) as stored:
        tensors = {name: stored.tensor(name) for name in entries}
    check_finite(file, tensors)
    return tensors


def check_names(file: Path, stored: Tensors, needed: Mapping[str, torch.Tensor], known: Mapping[str, Any]) -> None:
    """Refuse an adapter whose tensors are not exactly those of the model.

    Args:
        file: the adapter's weights, for messages.
        stored: its tensors, by name.
        needed: the tensors that the model has where adapter_config.json puts them.
        known: these, and the embeddings that a file may hold too.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of the wrong shape.
    """
    missing = sorted(needed.keys() - stored.keys())
    surplus = sorted(stored.keys() - known.keys())
    if missing:
        present = f"{format_count(len(needed) - len(missing))} of {format_count(len(needed))} present"
        what = f"{_tensors(missing)} missing ({present}): peft would fill them at random"
        also = f"; {listed(surplus)} not known" if surplus else ""
        raise refusal("checkpoint.missing_tensor", file, what + also, MISFIT)
    if surplus:
        held = f"{format_count(len(stored))} stored, {format_count(len(needed))} expected"
        raise refusal("checkpoint.unexpected_tensor", file, f"unexpected {_tensors(surplus)} ({held})", MISFIT)
    for name, tensor in stored.items():
        if tensor.shape != known[name].shape:
            shapes = f"has shape {list(tensor.shape)}, on this base it must be {list(known[name].shape)}"
            raise refusal("checkpoint.wrong_shape", file, f"tensor {visible(name, 100)} {shapes}", MISFIT)


def check_held(file: Path, stored: Tensors, held: Mapping[str, torch.Tensor], model: Any) -> None:
    """Refuse a model that does not hold exactly what the file holds, after it was loaded.

    Args:
        file: the adapter's weights, for messages.
        stored: its tensors, by name.
        held: the tensors of the model, by the same names.
        model: the model.

    Raises:
        CheckpointError: `adapter.not_applied`: a value is another one, or a weight was never filled.
    """
    empty = [name for name, weight in model.named_parameters() if weight.is_meta]
    other = [name for name, tensor in stored.items() if not held[name].cpu().equal(tensor.to(held[name].dtype))]
    if empty or other:
        what = f"tensor {visible((empty + other)[0], 100)} is not in the model"
        raise refusal("adapter.not_applied", file, what, MISFIT)


def _tensors(names: list[str]) -> str:
    return f"tensor{'' if len(names) == 1 else 's'} {listed(names)}"
