"""Which family a path holds, decided by content, never by name alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lossprobe.checkpoint.interface import Checkpoint, LoadOptions
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.units import visible

TORCH_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin"}
LOOKED_FOR = (
    "a Hugging Face directory (config.json and safetensors), a FundamentaLLM .pt (model_state), "
    "or a nanoGPT ckpt.pt (model and model_args)"
)


def open_checkpoint(path: Path | str, options: LoadOptions | None = None) -> Checkpoint:
    """Return the checkpoint that a directory or file holds.

    Args:
        path: a Hugging Face directory, a FundamentaLLM or nanoGPT `.pt` file, or a directory that holds
            exactly one such file.
        options: device, dtype, tokenizer and GELU kind; None for the defaults (CPU, float32).

    Raises:
        UsageError: nothing there, several candidates, a device that is not available.
        CheckpointError: not a family that lossprobe reads, or a checkpoint that would give wrong numbers.

    Examples:
        >>> checkpoint = open_checkpoint("my-model")  # doctest: +SKIP
    """
    path = Path(path)
    options = options or LoadOptions()
    options = replace(options, device=resolve_device(options.device))
    shown = visible(str(path), 200)
    try:
        exists = path.resolve(strict=True).exists()
    except FileNotFoundError:
        exists = False
    except (OSError, RuntimeError):
        raise CheckpointError("checkpoint.link_loop", f"{shown}: symbolic link loop") from None
    if not exists:
        raise UsageError("checkpoint.missing", f"{shown}: does not exist", hint="lossprobe never downloads a model")
    from lossprobe.checkpoint.huggingface import is_huggingface, load_huggingface

    if is_huggingface(path):
        return load_huggingface(path, options)
    return _open_torch_file(_single_file(path, shown), options)


def _single_file(path: Path, shown: str) -> Path:
    """Return the one file that can hold a torch checkpoint."""
    if path.is_file():
        if path.suffix == ".safetensors":
            raise CheckpointError(
                "checkpoint.bare_safetensors",
                f"{shown}: weights without a config.json",
                hint="give the directory instead",
            )
        return path
    found = sorted(entry.name for entry in path.iterdir())
    if ".metadata" in found or any(name.endswith(".distcp") for name in found):
        raise CheckpointError(
            "checkpoint.distributed",
            f"{shown}: a distributed checkpoint (.distcp)",
            hint="convert it to safetensors first",
        )
    candidates = [name for name in found if Path(name).suffix in TORCH_SUFFIXES and (path / name).is_file()]
    if len(candidates) > 1:
        raise UsageError(
            "checkpoint.several",
            f"{shown}: several candidates: {visible(', '.join(candidates), 160)}",
            hint="name one of them",
        )
    if not candidates:
        listing = visible(", ".join(found), 160) or "nothing"
        raise CheckpointError("checkpoint.unknown", f"{shown}: looked for {LOOKED_FOR}; found {listing}")
    return path / candidates[0]


def _open_torch_file(path: Path, options: LoadOptions) -> Checkpoint:
    from lossprobe.checkpoint.fundamentallm import is_fundamentallm, load_fundamentallm
    from lossprobe.checkpoint.nanogpt import is_nanogpt, load_nanogpt
    from lossprobe.checkpoint.torch_file import read_torch_file

    file = read_torch_file(path)
    if is_fundamentallm(file.content):
        return load_fundamentallm(file, options)
    if is_nanogpt(file.content):
        return load_nanogpt(file, options)
    keys = visible(", ".join(sorted(file.content)), 160)
    raise CheckpointError(
        "checkpoint.unknown", f"{visible(str(path), 200)}: looked for {LOOKED_FOR}; found the keys {keys}"
    )


def resolve_device(device: str) -> str:
    """Return the device to use: itself, or for "auto" the best one here.

    Raises:
        UsageError: a device that this machine does not have; there is no silent fallback to the CPU.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    available = {"cpu": True, "cuda": cuda, "mps": mps}
    if not available.get(device.partition(":")[0], False):
        raise UsageError(
            "device.missing", f"--device {visible(device, 20)}: not available here", hint="use --device cpu or auto"
        )
    return device
