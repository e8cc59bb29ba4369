"""Read the header of a GGUF file and measure every count, length and place in it against the size of the file.

llama.cpp and other readers trust these numbers, and a file that lies can hang or crash them, so nothing of a file is
given to them before it has passed here. All numbers are little-endian: "GGUF", version (uint32), number of tensors and
of keys (uint64), the keys with their values, then for each tensor its name, shape, type and place; the data follow at
the next multiple of `general.alignment`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.errors import CheckpointError
from lossprobe.units import format_count, plural, visible

MAGIC, SUFFIX, VERSIONS = b"GGUF", ".gguf", (2, 3)
MAX_KEYS, MAX_TENSORS, MAX_ITEMS = 1 << 14, 1 << 17, 1 << 24
MAX_STRING, MAX_NAME, MAX_DIMENSIONS = 1 << 25, 1 << 12, 4
STRING, ARRAY = 8, 9
# Codes of values in struct's letters, by their number in the file.
SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# Name, values of a block and bytes of a block, by the number of a tensor's type.
TENSOR_TYPES: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
# What `general.file_type` says: the mixture of types with which the file was made.
PLAIN_TYPES: Final = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"})
FILE_TYPES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip


@dataclass(frozen=True)
class GGUFTensor:
    """Where a tensor lies.

    Attributes:
        shape: sizes as torch has them: the last one is that of a row.
        kind: name of its type, such as "Q4_K".
        start: its first byte in the file.
        size: its number of bytes.
    """

    shape: tuple[int, ...]
    kind: str
    start: int
    size: int

    @property
    def values(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says before its data.

    Attributes:
        path: the file.
        keys: the values by their key; an array is a list.
        tensors: the tensors by name.
    """

    path: Path
    keys: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    def number(self, key: str, default: int | None = None) -> int:
        """Return the whole number of a key.

        Raises:
            CheckpointError: it is not there and has no default, or is no whole number.
        """
        value = self.keys.get(key, default)
        if type(value) is not int:
            raise refusal("checkpoint.bad_config", self.path, f"{key} is {visible(str(value)[:40])}, not a number")
        return value

    def text(self, key: str) -> str:
        """Return the text of a key; "" where it is not there or no text."""
        value = self.keys.get(key, "")
        return value if isinstance(value, str) else ""


def starts_as_gguf(path: Path) -> bool:
    """Return whether a file starts as GGUF files do, or is named as one and not empty."""
    try:
        with open_plain(path) as stream:
            begins = stream.read(len(MAGIC))
            return begins == MAGIC or (len(begins) > 0 and path.suffix == SUFFIX)  # its reader says what is wrong
    except (OSError, ValueError):
        return False  # whoever reads the file says why it cannot be read


def read_header(path: Path) -> GGUFHeader:
    """Return the header of a GGUF file.

    Raises:
        CheckpointError: the file is unreadable, cut short, of another version, or its header says what the file does
            not hold.
    """
    try:
        with open_plain(path) as stream:
            return _Reader(path, stream, path.stat().st_size).header()
    except OSError as error:
        raise unreadable(visible(str(path), 200), error) from None


class _Reader:
    """Reads a header; every length is compared with what is left of the file before anything is read or allocated."""

    def __init__(self, path: Path, stream: BufferedReader, size: int) -> None:
        self._path, self._stream, self._size, self._place = path, stream, size, 0

    def header(self) -> GGUFHeader:
        """Return the whole header."""
        magic, version = self._bytes(4, "the magic number"), self._number("I", "the version")
        if magic != MAGIC:
            raise refusal("checkpoint.bad_header", self._path, "does not start with GGUF")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            which = f"big-endian (version {swapped})" if swapped in VERSIONS else f"version {version}"
            raise refusal("checkpoint.bad_header", self._path, f"GGUF {which}; little-endian 2 and 3 are read")
        tensors, keys = self._number("Q", "the number of tensors"), self._number("Q", "the number of keys")
        self._refuse_more(tensors, MAX_TENSORS, 8 + 4 + 4 + 8, "tensors")
        self._refuse_more(keys, MAX_KEYS, 8 + 4 + 1, "keys")
        values: dict[str, Any] = {}
        for _ in range(keys):
            name = self._text("a key", MAX_NAME)
            if name in values:
                raise self._bad(f"the key {visible(name, 80)} twice")
            values[name] = self._value(self._number("I", name), name)
        return GGUFHeader(self._path, values, self._tensors(tensors, values))

    def _tensors(self, count: int, keys: dict[str, Any]) -> dict[str, GGUFTensor]:
        """Return the tensors, whose data begin after their list."""
        alignment = keys.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._bad(f"general.alignment {visible(str(alignment)[:40])}, not a power of two")
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name = self._text("the name of a tensor", MAX_NAME)
            if name in found:
                raise CheckpointError(
                    "checkpoint.duplicate_tensor", f"{visible(str(self._path), 200)}: {visible(name, 80)} twice"
                )
            found[name] = self._tensor(name)
        data = -(-self._place // alignment) * alignment
        placed = {name: self._placed(name, *each, data, alignment) for name, each in found.items()}
        self._refuse_overlap(placed)
        return placed

    def _tensor(self, name: str) -> tuple[tuple[int, ...], int, int]:
        """Return the shape, type and place, relative to the data, of the next tensor of the list."""
        count = self._number("I", name)
        if not 1 <= count <= MAX_DIMENSIONS:
            raise self._bad(f"tensor {visible(name, 80)} of {count} dimensions, not 1 to {MAX_DIMENSIONS}")
        shape = tuple(self._number("Q", name) for _ in range(count))[::-1]
        return shape, self._number("I", name), self._number("Q", name)

    def _placed(
        self, name: str, shape: tuple[int, ...], kind: int, offset: int, data: int, alignment: int
    ) -> GGUFTensor:
        shown = visible(name, 80)
        if kind not in TENSOR_TYPES:
            raise refusal("checkpoint.quantized", self._path, f"tensor {shown} has type {kind}, which is not known")
        title, values, size = TENSOR_TYPES[kind]
        if any(not 0 < each <= 1 << 40 for each in shape) or shape[-1] % values:
            what = f"tensor {shown} of shape {list(shape)}; rows of {title} hold whole blocks of {values}"
            raise refusal("checkpoint.wrong_shape", self._path, what)
        if offset % alignment:
            raise self._bad(f"tensor {shown} at {offset}, not a multiple of general.alignment {alignment}")
        length = math.prod(shape) // values * size
        if data + offset + length > self._size:
            missing = plural(data + offset + length - self._size, "byte")
            what = f"tensor {shown} ends {missing} after the file, which has {format_count(self._size)}"
            raise refusal("checkpoint.truncated", self._path, what)
        return GGUFTensor(shape, title, data + offset, length)

    def _refuse_overlap(self, tensors: dict[str, GGUFTensor]) -> None:
        end = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
            if tensor.start < end:
                raise refusal("checkpoint.overlap", self._path, f"tensor {visible(name, 80)} begins inside another")
            end = tensor.start + tensor.size

    def _value(self, kind: int, name: str) -> Any:
        if kind == STRING:
            return self._text(name, MAX_STRING)
        if kind in SCALARS:
            return self._number(SCALARS[kind], name)
        if kind != ARRAY:
            raise self._bad(f"{visible(name, 80)} of type {kind}, which is not known")
        inner, count = self._number("I", name), self._number("Q", name)
        if inner != STRING and inner not in SCALARS:
            raise self._bad(f"{visible(name, 80)}, an array of type {inner}, which is not known")
        least = 8 if inner == STRING else struct.calcsize("<" + SCALARS[inner])
        self._refuse_more(count, MAX_ITEMS, least, f"entries of {visible(name, 80)}")
        if inner == STRING:
            return [self._text(name, MAX_STRING) for _ in range(count)]
        return list(struct.unpack(f"<{count}{SCALARS[inner]}", self._bytes(count * least, name)))

    def _refuse_more(self, count: int, most: int, least: int, what: str) -> None:
        """Refuse a count that is absurd, or whose entries of at least `least` bytes do not fit into the file."""
        if count > most or count * least > self._size - self._place:
            left = f"{plural(self._size - self._place, 'byte')} are left"
            raise self._bad(f"{format_count(count)} {what}, where {left} and at most {format_count(most)} are read")

    def _number(self, letter: str, of: str) -> Any:
        size = struct.calcsize("<" + letter)
        return struct.unpack("<" + letter, self._bytes(size, of))[0]

    def _text(self, of: str, most: int) -> str:
        length = self._number("Q", of)
        self._refuse_more(length, most, 1, f"bytes for {visible(of, 80)}")
        return self._bytes(length, of).decode("utf-8", "surrogateescape")

    def _bytes(self, count: int, of: str) -> bytes:
        self._place += count
        data = self._stream.read(count) if self._place <= self._size else b""
        if len(data) != count:
            raise refusal("checkpoint.truncated", self._path, f"ends inside its header, at {visible(of, 80)}")
        return data

    def _bad(self, what: str) -> CheckpointError:
        return refusal("checkpoint.bad_header", self._path, f"the header has {what}")


def described_type(headers: Iterable[GGUFHeader]) -> str:
    """Return the file type and the bits per weight of all parts, such as "Q4_K_M, 4.89 bits per weight"."""
    parts = list(headers)
    tensors = [tensor for part in parts for tensor in part.tensors.values()]
    bits = 8 * sum(tensor.size for tensor in tensors) / max(1, sum(tensor.values for tensor in tensors))
    stated = parts[0].keys.get("general.file_type")
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.kind] = sizes.get(tensor.kind, 0) + tensor.values
    most = max(sorted(sizes), key=lambda kind: sizes[kind]) if sizes else "no tensors"
    name = FILE_TYPES.get(stated, most) if type(stated) is int else most
    return f"{name}, {bits:.2f} bits per weight"


def quantised_types(headers: Iterable[GGUFHeader]) -> list[str]:
    """Return the types of tensors that hold quantised weights, in the order of their names; none for plain numbers."""
    kinds = {tensor.kind for header in headers for tensor in header.tensors.values()}
    return sorted(kinds - PLAIN_TYPES)
