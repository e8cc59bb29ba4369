"""Read the header of llama2.c's `.bin` files and the size that a file with it must have."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossprobe.checkpoint.files.plain_files import open_plain
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.units import format_count

MAGIC, HEADER_BYTES = 0x616B3432, 256
NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
MOST = (1 << 20, 1 << 22, 1 << 12, 1 << 12, 1 << 12, 1 << 24, 1 << 24)  # of each; larger than any model has
# The weights of a layer after its two norms, in the file's order.
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")


@dataclass(frozen=True)
class Llama2cHeader:
    """What the start of a file says; the first seven as in `NAMES`.

    Attributes:
        version: 0 for the legacy form, 1 or 2.
        shared: whether the embedding is the head too.
        group: number of int8 values that share a scale; 0 where the weights are float32.
        start: number of bytes before the weights.
    """

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    max_seq_len: int
    version: int
    shared: bool
    group: int
    start: int

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.dim // self.n_heads

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each kind of weight of a layer, and of the embedding, as [out, in]."""
        keys = self.n_kv_heads * self.head_dim
        sizes = (self.dim, keys, keys)
        return {
            "embedding": (self.vocab_size, self.dim),
            **{name: (size, self.dim) for name, size in zip(MATRICES, sizes, strict=False)},
            "o_proj": (self.dim, self.dim),
            "gate_proj": (self.hidden_dim, self.dim),
            "down_proj": (self.dim, self.hidden_dim),
            "up_proj": (self.hidden_dim, self.dim),
        }

    def values(self) -> tuple[int, int]:
        """Return how many values the matrices and the norms (with the tables of the legacy form) have."""
        sizes = {name: shape[0] * shape[1] for name, shape in self.shapes.items()}
        matrices = self.n_layers * sum(sizes[name] for name in MATRICES)
        matrices += sizes["embedding"] * (1 if self.shared else 2)
        tables = 0 if self.version else 2 * self.max_seq_len * (self.head_dim // 2)
        return matrices, (2 * self.n_layers + 1) * self.dim + tables

    def file_size(self) -> int:
        """Return the number of bytes that a file with this header has."""
        matrices, others = self.values()
        each = matrices * 4 if not self.group else matrices + matrices // self.group * 4
        return self.start + each + others * 4


def is_llama2c(path: Path) -> bool:
    """Return whether a file starts as llama2.c writes it; a legacy one by numbers that only such a model has."""
    try:
        with open_plain(path) as stream:
            start = stream.read(HEADER_BYTES)
    except (OSError, ValueError):
        return False  # whoever reads the file says why it cannot be read
    if len(start) < 4 * len(NAMES):
        return False
    return struct.unpack("<I", start[:4])[0] == MAGIC or _fault(struct.unpack("<7i", start[:28])) == ""


def read_llama2c_header(path: Path, start: bytes) -> Llama2cHeader:
    """Return what the start of a file says.

    Raises:
        CheckpointError: it is of another version, or says what no model has.
    """
    version, flags, group, begin = 0, b"", 0, 28
    numbers: Sequence[int] = struct.unpack_from("<7i", start)
    if struct.unpack_from("<I", start)[0] == MAGIC:
        if len(start) < HEADER_BYTES:
            raise refusal("checkpoint.truncated", path, f"{len(start)} bytes, the header alone has {HEADER_BYTES}")
        version, *numbers = struct.unpack_from("<8i", start, 4)
        if version not in (1, 2):
            what = f"version {version} of llama2.c's format; 1 and 2 are known"
            raise refusal("checkpoint.bad_config", path, what)
        flags, begin = start[36:37], HEADER_BYTES
        group, rest = struct.unpack_from("<i", start, 37)[0] if version == 2 else 0, start[41 if version == 2 else 37 :]
        if flags not in (b"\0", b"\1") or rest.strip(b"\0"):
            raise refusal("checkpoint.bad_header", path, "the header has bytes that llama2.c does not write")
    fault = _fault(numbers, legacy=not version) or _group_fault(group, version, numbers)
    if fault:
        raise refusal("checkpoint.bad_config", path, f"the header has {fault}")
    shared = flags == b"\1" if version else numbers[5] > 0
    sizes = dict(zip(NAMES, map(abs, numbers), strict=True))
    return Llama2cHeader(**sizes, version=version, shared=shared, group=group, start=begin)


def _fault(numbers: Any, *, legacy: bool = True) -> str:
    """Return what is impossible in the seven numbers of a header, or "" where a model can have them."""
    for name, value, most in zip(NAMES, numbers, MOST, strict=True):
        size = abs(value) if legacy and name == "vocab_size" else value  # negative: head and embedding are separate
        if not 1 <= size <= most:
            return f"{name} {value}, not 1 to {format_count(most)}"
    dim, _, _, heads, shared, *_ = numbers
    if dim % heads or dim // heads % 2:
        return f"dim {dim} and n_heads {heads}: heads need an even width"
    return f"n_heads {heads} and n_kv_heads {shared}: not a multiple" if heads % shared else ""


def _group_fault(group: int, version: int, numbers: Any) -> str:
    """Return why the weights cannot be cut into groups of this size, or ""."""
    if version != 2:
        return ""
    if group < 1:
        return f"group_size {group}, not positive"
    dim, hidden, _, heads, shared, vocab, _ = numbers
    sizes = (dim * vocab, dim * dim, dim * shared * (dim // heads), dim * hidden)
    return next(
        (f"group_size {group}, which does not divide a matrix of {size} values" for size in sizes if size % group), ""
    )
