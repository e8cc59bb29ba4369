"""Find out which model family a path holds, by its content and not its name, and open it."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lossprobe.arguments import as_path
from lossprobe.checkpoint.chat import with_template
from lossprobe.checkpoint.families.llama2c_header import is_llama2c
from lossprobe.checkpoint.files.foreign import foreign_file, foreign_folder, in_its_folder
from lossprobe.checkpoint.files.plain_files import is_huggingface, stands, unreadable
from lossprobe.checkpoint.files.refusals import listed
from lossprobe.checkpoint.gguf.header import starts_as_gguf
from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.tokenizers.begun import begin_tokenizer
from lossprobe.errors import CheckpointError, UsageError
from lossprobe.isolation import refuse_deleted_folder
from lossprobe.objects.address import address_of
from lossprobe.units import mistyped_path, visible

if TYPE_CHECKING:
    from lossprobe.checkpoint.adapters.sharing import SharedBases

ADAPTER = "adapter_config.json"
TORCH_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin"}
# Files of a trainer's state, which are never opened.
TRAINING_STATE = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state.*)\.")
# Files beside a model: llama2.c's tokenizer, the later parts of a GGUF model, and what a GGUF model sees pictures with.
NOT_ALONE = re.compile(r"tokenizer\.bin|tok\d+\.bin|.*-(?!00001)\d{5}-of-\d{5}\.gguf|mmproj.*\.gguf")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
LOOKED_FOR = (
    "a Hugging Face directory (config.json and safetensors), an adapter of peft (adapter_config.json), "
    "a FundamentaLLM .pt (model_state), a nanoGPT ckpt.pt (model and model_args), a GGUF file, or a llama2.c .bin"
)


def open_checkpoint(
    path: Path | str, options: LoadOptions | None = None, bases: SharedBases | None = None
) -> Checkpoint:
    """Return the checkpoint that a directory or file holds.

    Args:
        path: a Hugging Face directory, the folder of an adapter, a FundamentaLLM or nanoGPT `.pt` file, or a directory
            that holds exactly one such file.
        options: device, dtype, tokenizer and GELU kind; None for the defaults (CPU, float32).
        bases: keeps the Hugging Face directory that was opened last for adapters that are opened on it next; None to
            keep none.

    Raises:
        UsageError: the path does not exist, holds several candidates, or the device is not available.
        CheckpointError: no family that lossprobe can open, or a checkpoint that would give wrong numbers.
        ResourceError: the model does not fit into memory.

    Examples:
        >>> checkpoint = open_checkpoint("my-model")  # doctest: +SKIP
    """
    path = as_path("path", "the path of a checkpoint", path, "a model in memory: lossprobe.CallableCheckpoint")
    refuse_deleted_folder()
    refuse_missing(path)  # before torch is imported for the device
    options = options or LoadOptions()
    alone = bases is None and is_huggingface(path) and not stands(path / ADAPTER)
    begun = begin_tokenizer(options.tokenizer or path, options.special_strings) if alone else None
    options = replace(options, device=resolve_device(options.device))
    shown = visible(str(path), 200)
    from lossprobe.checkpoint.adapters.folder import is_adapter
    from lossprobe.checkpoint.families.huggingface import load_huggingface
    from lossprobe.checkpoint.families.streaming import refuse_streaming
    from lossprobe.checkpoint.model.vector_math import settle_vector_math

    settle_vector_math()
    if is_adapter(path):
        return _open_adapter(path, options, bases)
    _refuse_adapter_options(shown, options)
    if is_huggingface(path) and bases is not None:
        return with_template(bases.open(path, options), path, options)
    if is_huggingface(path):
        return with_template(load_huggingface(path, options, begun), path, options)
    refuse_streaming(shown, "a checkpoint that is no Hugging Face folder", options)
    file = _single_file(path, shown)
    if is_llama2c(file):
        from lossprobe.checkpoint.families.llama2c import load_llama2c

        return load_llama2c(file, options)
    if starts_as_gguf(file):
        from lossprobe.checkpoint.gguf.model import load_gguf

        opened = load_gguf(file, options)  # with the template that the file itself holds
        return opened if options.chat_template is None else with_template(opened, path, options)
    return with_template(_open_torch_file(file, options), path, options)


def _open_adapter(path: Path, options: LoadOptions, bases: SharedBases | None) -> Checkpoint:
    """Return the adapter in a folder on its base."""
    from lossprobe.checkpoint.adapters.load import load_adapter
    from lossprobe.checkpoint.adapters.sharing import SharedBases

    return load_adapter(path, options, bases or SharedBases())


def _refuse_adapter_options(shown: str, options: LoadOptions) -> None:
    """Refuse the options of an adapter for a checkpoint that is none.

    Raises:
        UsageError: `adapter.options`: one of them is given.
    """
    given = [name for name in ("base", "merge") if getattr(options, name)]
    if given:
        what = f"{shown}: is no adapter (it holds no adapter_config.json), and `{given[0]}` is only for one"
        raise UsageError("adapter.options", what)


def refuse_address(path: Path) -> None:
    """Refuse a checkpoint on object storage.

    Raises:
        UsageError: it is one.
    """
    address = address_of(path)
    if address is not None:
        what = f"{visible(address.uri, 200)}: a checkpoint is read from files of this machine"
        raise UsageError("object.checkpoint", what, hint="copy it first")


def refuse_missing(path: Path) -> None:
    """Refuse a path that does not exist, is a link loop or an address of object storage, or cannot be reached.

    Raises:
        UsageError: it does not exist, or is an address.
        CheckpointError: it is a link loop, or cannot be reached.
    """
    refuse_address(path)
    shown = visible(str(path), 200)
    try:
        path.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError("checkpoint.missing", f"{shown}: does not exist", hint=_how_to_get(path)) from None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) or getattr(error, "errno", None) == errno.ELOOP:
            raise CheckpointError("checkpoint.link_loop", f"{shown}: symbolic link loop") from None
        raise unreadable(shown, error) from None


def _how_to_get(path: Path) -> str:
    """Return what to do about a checkpoint that does not exist; it may be meant as a name of the Hugging Face hub."""
    hint = "lossprobe never downloads a model"
    if HUB_NAME.fullmatch(str(path)):
        hint += f"; one of the Hugging Face hub: hf download {path} --local-dir FOLDER, and name that folder"
    return mistyped_path(str(path)) or hint


def _single_file(path: Path, shown: str) -> Path:
    """Return the file itself, or the only file of a directory that can hold a torch checkpoint."""
    if not path.is_dir():
        if path.suffix == ".safetensors":
            raise CheckpointError(
                "checkpoint.bare_safetensors",
                f"{shown}: weights without a config.json",
                hint=in_its_folder(path) or "give a folder that holds both",
            )
        foreign = foreign_file(path)
        if foreign is not None:
            raise foreign
        return path
    from lossprobe.checkpoint.files.weight_files import list_names

    found = list_names(path)
    foreign = foreign_folder(path, found)
    if foreign is not None:
        raise foreign
    candidates = [name for name in found if _can_be_checkpoint(path / name)]
    if len(candidates) > 1:
        raise UsageError(
            "checkpoint.several",
            f"{shown}: several candidates: {visible(', '.join(candidates), 160)}",
            hint="name one of them",
        )
    if not candidates:
        listing = visible(", ".join(found), 160) or "nothing"
        raise CheckpointError(
            "checkpoint.unknown", f"{shown}: looked for {LOOKED_FOR}; found {listing}", hint=_what_to_give(path, found)
        )
    return path / candidates[0]


def _what_to_give(path: Path, names: Sequence[str]) -> str | None:
    """Return what to do about a folder that holds no checkpoint itself: of a training run, or of several adapters."""
    inside = [name for name in names if any(stands(path / name / file) for file in ("config.json", ADAPTER))]
    if inside:
        return f"name one of the checkpoints in it: {listed(inside)}"
    if any(re.fullmatch(r"adapter_model\.(safetensors|bin)", name) for name in names):
        return f"put the {ADAPTER} that was saved with the adapter beside it"
    weights = any(name.endswith(".safetensors") for name in names)
    return "put the config.json of the same model beside the weights" if weights else None


def _can_be_checkpoint(path: Path) -> bool:
    """Return whether a file's name is one that torch checkpoints have."""
    beside = TRAINING_STATE.match(path.name) or NOT_ALONE.fullmatch(path.name)
    return path.suffix in TORCH_SUFFIXES | {".gguf"} and not beside and not path.is_dir()


def _open_torch_file(path: Path, options: LoadOptions) -> Checkpoint:
    """Return the checkpoint in a torch file; its keys decide the family."""
    from lossprobe.checkpoint.families.fundamentallm import is_fundamentallm, load_fundamentallm
    from lossprobe.checkpoint.families.nanogpt import is_nanogpt, load_nanogpt
    from lossprobe.checkpoint.files.torch_file import read_torch_file

    file = read_torch_file(path)
    if is_fundamentallm(file.content):
        return load_fundamentallm(file, options)
    if is_nanogpt(file.content):
        return load_nanogpt(file, options)
    keys = visible(", ".join(sorted(file.content)), 160)
    raise CheckpointError(
        "checkpoint.unknown",
        f"{visible(str(path), 200)}: looked for {LOOKED_FOR}; found the keys {keys}",
        hint=in_its_folder(path),
    )


def resolve_device(device: str) -> str:
    """Return the device to use; for "auto" CUDA, else MPS, else the CPU, as available.

    Raises:
        UsageError: this machine does not have the device; there is no silent fallback to the CPU.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    available = {"cpu": True, "cuda": cuda, "mps": mps}
    kind, separator, index = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    numbered = not separator or (index.isdecimal() and int(index) < count)
    if not available.get(kind, False) or not numbered:
        raise UsageError(
            "device.missing", f"`device` {visible(device, 20)}: not available here", hint="use `device` cpu or auto"
        )
    return device
