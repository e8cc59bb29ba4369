"""Refuse weights that are NaN or infinite in a GGUF file, by the bits of the numbers that are stored as floating point.

Quantised weights are whole numbers times the scales of their block. So the scales alone are looked at, which lie at
known places in each block (ggml-common.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Final

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.files.plain_files import open_plain, unreadable
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.checkpoint.gguf.header import PLAIN_TYPES, TENSOR_TYPES, GGUFHeader, GGUFTensor
from lossprobe.units import plural, visible

CHUNK = 1 << 20  # bytes that are looked at together; they stay in the cache
HALF = 0x7C00  # the exponent of a float16, all ones in NaN and infinity
Field = tuple[int, str, int]  # its place in a block, its dtype, and bits that are all ones where it is not finite


def _halves(*places: int) -> tuple[tuple[Field, ...], ...]:
    """Return the fields of float16 scales at some places."""
    return tuple(((place, "<u2", HALF),) for place in places)


# Name of a type → its numbers in floating point; the bits of one can lie in several fields. Types that are not here
# (whole numbers, and NVFP4, whose scales have no infinity) hold no number that is not finite.
NUMBERS: Final[dict[str, tuple[tuple[Field, ...], ...]]] = {
    "F32": (((0, "<u4", 0x7F80_0000),),), "F64": (((0, "<u8", 0x7FF0_0000_0000_0000),),),
    "F16": _halves(0), "BF16": (((0, "<u2", 0x7F80),),), "MXFP4": (((0, "u1", 0xFF),),),
    "Q2_K": _halves(80, 82), "Q3_K": _halves(108), "Q6_K": _halves(208), "TQ1_0": _halves(52), "TQ2_0": _halves(64),
    "IQ1_M": (((52, "<u2", 0xC000), (54, "<u2", 0x7000)),),  # four bits of the scale in each of four fields
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), _halves(0, 2)),
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q1_0", "Q2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
                    _halves(0)),
    **dict.fromkeys(("IQ1_S", "IQ4_NL", "IQ4_XS"), _halves(0)),
}  # fmt: skip
BLOCK_BYTES: Final = {kind: size for kind, _, size in TENSOR_TYPES.values()}


def refuse_not_finite(headers: Iterable[GGUFHeader]) -> None:
    """Refuse a model of which a weight, or the scale of a block of weights, is NaN or infinite.

    Args:
        headers: the measured headers of all its parts.

    Raises:
        CheckpointError: `checkpoint.non_finite`; it names the first such tensor. Or a file cannot be read.
    """
    for header in headers:
        try:
            with open_plain(header.path) as stream:
                for name, tensor in header.tensors.items():
                    count = sum(_not_finite(tensor.kind, data) for data in _chunks(stream, header, tensor))
                    if count:
                        one = "non-finite value" if tensor.kind in PLAIN_TYPES else "block"
                        scales = "" if tensor.kind in PLAIN_TYPES else f" of {tensor.kind} with a non-finite scale"
                        what = f"{visible(name, 80)}: {plural(count, one)}{scales}"
                        raise refusal("checkpoint.non_finite", header.path, what)
        except OSError as error:
            raise unreadable(visible(str(header.path), 200), error) from None


def _chunks(stream: BufferedReader, header: GGUFHeader, tensor: GGUFTensor) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the bytes of a tensor, some whole blocks at a time in one buffer; nothing if it holds no floating point."""
    left = tensor.size if tensor.kind in NUMBERS else 0
    buffer = np.empty(min(left, CHUNK // BLOCK_BYTES[tensor.kind] * BLOCK_BYTES[tensor.kind]), np.uint8)
    stream.seek(tensor.start)
    while left:
        data = buffer[:left]
        if stream.readinto(data.data) != len(data):
            raise refusal("checkpoint.changed", header.path, "became shorter while it was read")
        left -= len(data)
        yield data


def _not_finite(kind: str, data: npt.NDArray[np.uint8]) -> int:
    """Return in how many of some blocks a number is not finite."""
    size = BLOCK_BYTES[kind]
    if kind in PLAIN_TYPES and _all_finite(data, size, NUMBERS[kind][0][0][2]):
        return 0
    found = np.zeros(len(data) // size, bool)
    for fields in NUMBERS[kind]:
        bad = np.ones(1, bool)
        for place, dtype, ones in fields:
            field: npt.NDArray[np.unsignedinteger] = np.ndarray(found.shape, dtype, data, place, (size,))
            bad = bad & (field & ones == ones)
        found |= bad
    return int(np.count_nonzero(found))


def _all_finite(data: npt.NDArray[np.uint8], size: int, ones: int) -> bool:
    """Return whether all of some numbers of `size` bytes are finite, by the largest of their bits: ten times as fast.

    Positive numbers are in the order of their bits, and so are, above all of them, negative ones by their size.
    """
    sign = 1 << 8 * size - 1
    return bool(data.view(f"<i{size}").max() < ones and data.view(f"<u{size}").max() < ones | sign)
