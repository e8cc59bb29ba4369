"""Check that the stored tensors are exactly the expected ones, with finite values; choose the dtype to compute in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lossprobe.checkpoint.files.threads import of_each
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import format_count, visible

SHOWN_NAMES = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_tensors(path: Path, actual: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check that the stored tensors are exactly the expected ones.

    A missing tensor would be filled with random values, and a surplus one means that the model is another one: both
    would give plausible but wrong losses.

    Args:
        path: the file, for messages.
        actual: the stored tensors by name.
        expected: the shape of every tensor that the configuration asks for, by name.

    Raises:
        CheckpointError: `checkpoint.missing_tensor`, `checkpoint.unexpected_tensor` or `checkpoint.wrong_shape`.
    """
    shown = visible(str(path), 200)
    missing = [name for name in expected if name not in actual]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        counts = f"{format_count(len(expected) - len(missing))} of {format_count(len(expected))} present"
        raise CheckpointError("checkpoint.missing_tensor", f"{shown}: {_named(missing)} {verb} missing ({counts})")
    surplus = [name for name in actual if name not in expected]
    if surplus:
        counts = f"{format_count(len(actual))} stored, {format_count(len(expected))} expected"
        raise CheckpointError("checkpoint.unexpected_tensor", f"{shown}: unexpected {_named(surplus)} ({counts})")
    for name, shape in expected.items():
        stored = list(actual[name].shape)
        if stored != list(shape):
            raise CheckpointError(
                "checkpoint.wrong_shape",
                f"{shown}: tensor {visible(name, 80)} has shape {stored}, the configuration asks for {list(shape)}",
            )


def check_finite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Check that every value of every tensor is finite.

    Raises:
        CheckpointError: `checkpoint.non_finite`; it names the first tensor with NaN or infinity and counts them in it.
    """
    of_each(lambda item: refuse_non_finite(path, *item), tensors.items())


def refuse_non_finite(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Check that every value of one tensor is finite; errors as in `check_finite`."""
    if math.isfinite(tensor.detach().sum()):  # NaN and infinity stay in a sum: thirty times as fast as `isfinite`
        return
    count = tensor.numel() - int(torch.isfinite(tensor).sum())
    if count:  # otherwise the sum has overflowed
        raise not_finite(path, name, count)


def not_finite(path: Path, name: str, count: int) -> CheckpointError:
    """Return the error for a tensor with NaN or infinity: how many of its values are none."""
    return CheckpointError(
        "checkpoint.non_finite",
        f"{visible(str(path), 200)}: {visible(name, 80)}: {format_count(count)} non-finite"
        f" value{'' if count == 1 else 's'}",
    )


def _named(names: Sequence[str]) -> str:
    """Return "tensor a", or "tensors a, b, c and 5 more"."""
    listed = ", ".join(visible(name, 80) for name in names[:SHOWN_NAMES])
    more = f" and {format_count(len(names) - SHOWN_NAMES)} more" if len(names) > SHOWN_NAMES else ""
    return f"tensor{'' if len(names) == 1 else 's'} {listed}{more}"


def compute_dtype(stored: str, wanted: str) -> torch.dtype:
    """Return the dtype of the forward pass.

    Args:
        stored: name of the dtype of the stored weights.
        wanted: "float32", "bfloat16", "float16", or "auto" for the stored dtype (float32 if that is none of these).

    Raises:
        UsageError: `wanted` is another word, or "autocast", which Hugging Face checkpoints alone have.
    """
    if wanted == "autocast":
        raise UsageError("checkpoint.dtype", "`dtype` autocast: only for Hugging Face checkpoints")
    if wanted not in DTYPES and wanted != "auto":
        raise UsageError("checkpoint.dtype", f"`dtype` {visible(wanted, 20)}: must be one of {', '.join(DTYPES)}, auto")
    return DTYPES.get(stored, torch.float32) if wanted == "auto" else DTYPES[wanted]
