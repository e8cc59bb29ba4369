"""Read the headers of safetensors files, and check them.

The safetensors library accepts headers that are refused here: a key given twice (the last one wins), a blank before the
header, tensors of size zero with absurd shapes, no tensors at all.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from lossprobe.checkpoint.files.json_file import parse_json
from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, visible

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 100_000
MAX_SIDES = 16  # dimensions of a tensor, more than any model has; multiplying a million of them takes hours
ITEM_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip

NOT_GATHERED = (
    "DeepSpeed's ZeRO-3 saves empty tensors where the weights are not gathered first: join its shards with "
    "zero_to_fp32.py, or save with stage3_gather_16bit_weights_on_model_save"
)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header declares it: dtype code, shape, and byte range [start, stop) after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def scan_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors that a safetensors file declares, by name, after checking that they fill the file exactly.

    Raises:
        CheckpointError: the file cannot be read or breaks the format; the message gives the offending value.
    """
    shown = visible(str(path), 200)
    try:
        with open_plain(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = _header_length(stream.read(8), size, shown)
            header = stream.read(length)
    except (OSError, ValueError) as error:
        raise unreadable(shown, error) from None
    if not header.startswith(b"{"):
        raise CheckpointError("checkpoint.bad_header", f"{shown}: the header must start with {{")
    declared = parse_json(header, f"{shown} (header)")
    metadata = declared.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("checkpoint.bad_header", f"{shown}: __metadata__ must map strings to strings")
    if not declared:
        raise CheckpointError("checkpoint.no_tensors", f"{shown}: holds no tensors")
    if len(declared) > MAX_TENSORS:
        raise CheckpointError("checkpoint.too_many_tensors", f"{shown}: {format_count(len(declared))} tensors")
    entries = {name: _entry(name, value, shown) for name, value in declared.items()}
    _check_layout(entries, size - 8 - length, shown)
    return entries


def _header_length(prefix: bytes, size: int, shown: str) -> int:
    """Return the header's length in bytes, which the first 8 bytes of the file give."""
    if size == 0:
        raise CheckpointError("checkpoint.empty", f"{shown}: file is empty")
    if size < 8:
        raise CheckpointError("checkpoint.truncated", f"{shown}: {size} bytes, shorter than 8 bytes")
    length = int.from_bytes(prefix, "little")
    if length > size - 8:
        raise CheckpointError(
            "checkpoint.bad_header",
            f"{shown}: header length {format_count(length)} exceeds file size {format_count(size)}",
            hint="is this a safetensors file, downloaded completely?",
        )
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            "checkpoint.bad_header", f"{shown}: header too large: {format_count(length)} bytes (limit 16 MiB)"
        )
    return length


def _entry(name: str, value: object, shown: str) -> TensorEntry:
    """Return one checked entry of the header."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _bad_entry(shown, name, " lacks dtype, shape or data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise _bad_entry(shown, name, f": unknown dtype {visible(str(dtype), 20)}")
    sides_fit = isinstance(shape, list) and len(shape) <= MAX_SIDES
    if not sides_fit or not all(type(side) is int and 0 < side < 1 << 48 for side in shape):
        hint = NOT_GATHERED if shape == [0] else None
        raise _bad_entry(shown, name, f": bad shape {visible(str(shape), 60)}", hint)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(o) is int and o >= 0 for o in offsets):
        what = f"bad offsets for {visible(name, 80)}: {visible(str(offsets), 60)}"
        raise CheckpointError("checkpoint.bad_header", f"{shown}: {what}")
    start, stop = offsets
    bits = math.prod(shape) * ITEM_BITS[dtype]
    needed = -(-bits // 8)
    if stop - start != needed or bits % 8:
        raise _bad_entry(shown, name, f": needs {format_count(needed)} bytes, has {format_count(stop - start)}")
    return TensorEntry(dtype, tuple(shape), start, stop)


def _bad_entry(shown: str, name: str, what: str, hint: str | None = None) -> CheckpointError:
    return CheckpointError("checkpoint.bad_header", f"{shown}: tensor {visible(name, 80)}{what}", hint=hint)


def _check_layout(entries: dict[str, TensorEntry], data_size: int, shown: str) -> None:
    """Refuse tensors that overlap, leave holes, or do not end where the file ends."""
    position, previous = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start < position:
            both = f"{visible(previous, 80)} and {visible(name, 80)}"
            raise CheckpointError("checkpoint.overlap", f"{shown}: tensors {both} overlap")
        if entry.start > position:
            unused = format_count(entry.start - position)
            raise CheckpointError(
                "checkpoint.hole", f"{shown}: {unused} unused bytes at offset {position}, before {visible(name, 80)}"
            )
        position, previous = entry.stop, name
    if position > data_size:
        raise CheckpointError(
            "checkpoint.truncated", f"{shown}: {format_count(position - data_size)} bytes missing; incomplete download?"
        )
    if position < data_size:
        extra = format_count(data_size - position)
        raise CheckpointError("checkpoint.trailing", f"{shown}: {extra} unexplained bytes at the end")
