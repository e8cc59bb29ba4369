"""Read files written by `torch.save` so that nothing in them can run, crash the process or take too much memory.

`outline_pickle` first lists, without executing the pickle, which names it would import, which tensor data it declares
and how deeply its tuples nest. Only a file that passes these checks is given to `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import IO

import torch
from packaging.version import Version
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lossprobe.checkpoint.files.constants import Constants
from lossprobe.checkpoint.files.pickle_outline import STORAGE_ITEM_BYTES, outline_pickle
from lossprobe.checkpoint.files.plain_files import open_plain
from lossprobe.checkpoint.files.refusals import listed, refusal
from lossprobe.checkpoint.files.tensors import compute_dtype
from lossprobe.checkpoint.files.torch_archive import Record, hash_archive, read_record, read_records
from lossprobe.checkpoint.files.torch_extras import is_harmless, stand_ins
from lossprobe.units import format_count, plural, visible, visible_bytes

TORCH_FLOOR = (2, 10)  # in older releases a file can get around weights_only (CVE-2026-24747)
MAX_PICKLE_BYTES = 16 << 20  # the pickle does not contain the tensor data: about 100 kB for a large model
MAX_NESTING = 32
# All that dense tensors need. torch allows more, such as bytearray(2**40), which would exhaust the memory.
PLAIN_GLOBALS = frozenset(STORAGE_ITEM_BYTES) | {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "torch.device",
    *(f"torch.{dtype}" for dtype in ("float64", "float32", "float16", "bfloat16")),
}
# Classes and functions that only hold data. They only decide between two wordings of a refusal.
DATA_GLOBALS = re.compile(
    r"(argparse|pathlib|types|decimal|uuid)\.[A-Z]\w+|(collections|datetime)\.\w+|_codecs\.encode"
    r"|(builtins|__builtin__)\.(int|long|float|complex|set|frozenset|bytearray|x?range|slice)"
    r"|numpy\.(dtype|(_core|core)\.multiarray\.(scalar|_reconstruct))"
    r"|torch\.(_utils\._rebuild_\w+|serialization\._get_layout|[a-z]+\d\w*)"
)
UNREADABLE = (  # what zipfile, pickletools and torch raise on damaged input
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class TorchFile:
    """A file written by `torch.save`, read into plain objects.

    Attributes:
        path: where it is.
        content: the saved dict; its tensors are dense, on the CPU, and no larger than the data in the file.
        sha256: hash of the file's bytes.
        notices: what a user should know about it, one line each.
    """

    path: Path
    content: dict[str, object]
    sha256: str
    notices: tuple[str, ...] = ()


def read_torch_file(path: Path) -> TorchFile:
    """Return the content and hash of a file written by `torch.save`.

    Raises:
        CheckpointError: the file is not such an archive, is damaged, changed while it was read, or holds more than
            tensors and plain values; or the installed torch is too old.
    """
    if Version(torch.__version__).release < TORCH_FLOOR:
        what = f"reading a .pt file needs torch 2.10 or later, {visible(torch.__version__, 40)} is installed"
        raise refusal("checkpoint.torch_too_old", path, what, "upgrade torch, or convert the checkpoint to safetensors")
    try:
        if not path.exists() or path.is_dir():
            raise refusal("checkpoint.unreadable", path, "is not a file")
        with open_plain(path) as stream:
            before = os.fstat(stream.fileno())
            _check_start(path, stream.read(4))
            records, data = _open_archive(path, stream, before.st_size)
            digest, notices = hash_archive(path, stream, records)
        extras = _check_pickle(path, records, data)
        with safe_globals(stand_ins(extras)):
            content = _load(path)
        after = path.stat()
    except OSError as error:
        raise refusal("checkpoint.unreadable", path, f"cannot be read: {error.strerror or 'i/o error'}") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        what = f"changed during reading ({before.st_size} bytes, then {after.st_size})"
        raise refusal("checkpoint.changed", path, what, "a training run may be writing it; copy it first")
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        what = f"unknown structure: {type(content).__name__}, not a dict with text keys"
        raise refusal("checkpoint.unknown_structure", path, what)
    check_tensor_bytes(path, content, before.st_size)
    return TorchFile(path, dict(content), digest, notices)


def tensors_in(file: TorchFile, key: str) -> dict[str, torch.Tensor]:
    """Return the floating-point tensors of the state dict stored under `key`, by name.

    Constants of other dtypes (see `Constants`) are left out.

    Raises:
        CheckpointError: there is no such dict, it is empty, or it holds something that is neither.
    """
    stored = file.content.get(key)
    if not isinstance(stored, dict) or not stored:
        raise refusal("checkpoint.no_tensors", file.path, f"{key} holds no tensors")
    constants = Constants()
    for name, value in stored.items():
        named = isinstance(name, str) and isinstance(value, torch.Tensor)
        if not named or not (value.is_floating_point() or constants.holds(name, value)):
            kind = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
            what = f"{key}: {visible(str(name), 80)} is {kind}, not a floating-point tensor"
            raise refusal("checkpoint.not_float", file.path, what)
    return {name: value for name, value in stored.items() if value.is_floating_point()}


def dtypes(tensors: Mapping[str, torch.Tensor], asked: str) -> tuple[torch.dtype, torch.dtype]:
    """Return the common dtype of the stored tensors by torch's promotion rules, and the dtype of the forward pass.

    Args:
        tensors: the stored tensors by name.
        asked: name of the dtype of the forward pass; "auto" is the stored one.

    Raises:
        UsageError: as `compute_dtype`.
    """
    stored = reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))
    return stored, stored if asked == "auto" else compute_dtype(str(stored), asked)


def check_tensor_bytes(path: Path, content: object, file_bytes: int) -> None:
    """Check that every tensor in nested dicts, lists and tuples is dense and no larger than the data in its file.

    A tensor with stride 0, or one storage under many names, can turn a few bytes of a file into terabytes of values.

    Args:
        path: the file, for messages.
        content: the content of the file.
        file_bytes: the file's size.

    Raises:
        CheckpointError: a tensor is not dense or larger than its storage; all tensors together are larger than twice
            the file (tied weights are stored once and count twice); or the structure contains itself or nests too deep.
    """
    total = 0
    for name, tensor in _tensors(path, content, "", set(), ()):
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            what = f"tensor {name} is not a plain dense tensor ({tensor.layout}, {tensor.dtype}, {tensor.device})"
            raise refusal("checkpoint.not_dense", path, what)
        needed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
        if needed > held:
            counts = f"needs {format_count(needed)} bytes, has {format_count(held)}"
            what = f"tensor {name} is larger than its storage: {counts}"
            raise refusal("checkpoint.tensor_exceeds_storage", path, what)
        total += needed
    if total > 2 * file_bytes:
        what = f"tensors share storage: {format_count(total)} bytes in all, from a file of {format_count(file_bytes)}"
        raise refusal("checkpoint.tensor_exceeds_storage", path, what)


def _check_start(path: Path, start: bytes) -> None:
    """Refuse a file whose first four bytes are not those of a zip archive."""
    if not start:
        raise refusal("checkpoint.empty", path, "file is empty (0 bytes)")
    if start[:1] == b"\x80":
        raise refusal("checkpoint.not_torch_file", path, "not a torch file but a bare pickle, which is never loaded")
    if start != b"PK\x03\x04":
        raise refusal("checkpoint.not_torch_file", path, f'not a torch file: it starts with "{visible_bytes(start)}"')


def _open_archive(path: Path, stream: IO[bytes], size: int) -> tuple[dict[str, Record], bytes]:
    """Return the records of an archive by name, and the bytes of its pickle."""
    try:
        records = read_records(path, stream, size)
        if "data.pkl" not in records:
            what = f"not a torch file: a zip archive of {len(records)} entries without data.pkl"
            raise refusal("checkpoint.not_torch_file", path, what)
        if records["data.pkl"].size > MAX_PICKLE_BYTES:
            counts = f"{format_count(records['data.pkl'].size)} bytes (limit {format_count(MAX_PICKLE_BYTES)})"
            raise refusal("checkpoint.unknown_structure", path, f"unknown structure: data.pkl has {counts}")
        data = read_record(stream, records["data.pkl"])
    except (OSError, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: seek to a negative offset, so damaged
            raise
        what = f"archive incomplete: no readable table of contents in {plural(size, 'byte')}"
        raise refusal("checkpoint.truncated", path, what, "was it copied or downloaded completely?") from None
    return records, data


def _check_pickle(path: Path, records: dict[str, Record], data: bytes) -> set[str]:
    """Return the names in a pickle for which `torch_extras` has stand-ins.

    Raises:
        CheckpointError: the pickle holds anything else besides plain tensors, or data of a tensor is missing.
    """
    try:
        outline = outline_pickle(data)
    except ValueError as error:
        what = f"unknown structure: {visible(str(error), 100)}"
        raise refusal("checkpoint.unknown_structure", path, what) from None
    extras = {name for name in outline.globals - PLAIN_GLOBALS if is_harmless(name)}
    _check_globals(path, outline.globals - PLAIN_GLOBALS - extras, extras)
    present = sum(name in records for name, _ in outline.storages)
    for name, declared in sorted(outline.storages):
        stored = records[name].size if name in records else None
        if stored != declared:
            found = "is not in the archive" if stored is None else f"holds {stored} of {declared} bytes"
            counts = f"{present} of {len(outline.storages)} records present"
            raise refusal(
                "checkpoint.tensor_data", path, f"tensor data missing: {visible(name, 80)} {found} ({counts})"
            )
    return extras


def _check_globals(path: Path, unsafe: set[str], extras: set[str]) -> None:
    """Refuse a pickle that imports more than the extras and what both our list and torch's list allow.

    Args:
        path: the file, for messages.
        unsafe: names that the pickle imports and that neither `PLAIN_GLOBALS` nor `extras` holds.
        extras: names that stand-ins replace.
    """
    if not unsafe:
        try:
            unsafe = set(get_unsafe_globals_in_checkpoint(path)) - extras
        except UNREADABLE:
            what = "unknown structure: its pickle has instructions that torch.save does not write"
            raise refusal("checkpoint.unknown_structure", path, what) from None
    running = sorted(name for name in unsafe if not _only_data(name))
    if running:
        raise refusal("checkpoint.unsafe_pickle", path, f"contains {listed(running)}; not loaded")
    if unsafe:
        raise refusal("checkpoint.foreign_objects", path, f"holds objects other than tensors: {listed(sorted(unsafe))}")


def _only_data(name: str) -> bool:
    """Return whether a name looks like a class that only holds data; this only decides between two messages."""
    foreign_class = name.partition(".")[0] not in sys.stdlib_module_names and name.rpartition(".")[2][:1].isupper()
    return foreign_class or DATA_GLOBALS.fullmatch(name) is not None


def _load(path: Path) -> object:
    """Return what `torch.load` makes of a file that passed all checks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE:
        what = "damaged: torch cannot rebuild its tensors (or they do not fit in memory)"
        raise refusal("checkpoint.damaged", path, f"{what}: {plural(path.stat().st_size, 'byte')}") from None
    return content


def _tensors(
    path: Path, value: object, name: str, seen: set[int], around: tuple[int, ...]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor in `value` with a printable name, going into each container once.

    Args:
        path: the file, for messages.
        value: the tensor or container to look at.
        name: its printable name.
        seen: `id` of every container that was entered already; extended here.
        around: `id` of the containers that `value` lies in.
    """
    if isinstance(value, torch.Tensor):
        yield name, value
    if not isinstance(value, dict | list | tuple):
        return
    if id(value) in around or len(around) >= MAX_NESTING:
        problem = "contains itself" if id(value) in around else f"nests more than {MAX_NESTING} deep"
        raise refusal("checkpoint.unknown_structure", path, f"unknown structure: {visible(name, 80)} {problem}")
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        part = visible(key[:80]) if isinstance(key, str) else str(key) if isinstance(key, int) else type(key).__name__
        yield from _tensors(path, item, f"{name}.{part}".removeprefix("."), seen, (*around, id(value)))
