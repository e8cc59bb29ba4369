"""Unpack codes of a few bits, and decode the number formats that quantisers store: FP4 and powers of two."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from lossprobe.checkpoint.files import fresh_memory
from lossprobe.checkpoint.quantized import loops

# FP4 (E2M1): one sign bit, then eight magnitudes. OCP Microscaling Formats (MX) Specification 1.0, section 5.3.3.
E2M1: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


class NotFiniteError(ValueError):
    """A weight has values that are not finite.

    Attributes:
        count: how many.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.count = weight.numel() - int(torch.isfinite(weight).sum())
        super().__init__(f"{self.count} values are not finite")


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes that lie in 32-bit words one after the other, the least significant bit first.

    A code may begin in one word and end in the next. The word 0x00000021 holds the 4-bit codes 1, 2, 0, 0, 0, 0, 0, 0.

    Args:
        words: int32 [R, W].
        bits: bits of a code, 1 to 8.

    Returns:
        uint8 [R, W · 32 // bits].
    """
    count = words.shape[1] * 32 // bits
    codes = torch.empty(len(words), -(-count // 8) * 8, dtype=torch.uint8)
    loops.unpack_rows(_octets(words), bits, codes.numpy())
    return codes[:, :count]


def from_codes(
    words: torch.Tensor, bits: int, zeros: torch.Tensor, scales: torch.Tensor, inputs: int, group: torch.Tensor | None
) -> torch.Tensor:
    """Return the weights (q − z) · s, float32 [out, in].

    Args:
        words: int32 [out, W], the codes q as `unpack` reads them.
        bits: bits of a code, 1 to 8.
        zeros: z, float32 [out, G] or [1, G].
        scales: s, float32 [out, G] or [1, G].
        inputs: codes of a row; those beyond them are left out.
        group: int64 [in], the group of each input; without it G groups of equal size lie one after the other.

    Raises:
        NotFiniteError: a weight is NaN or infinite.
    """
    weight = fresh_memory.empty(len(words), inputs)
    order = (torch.empty(0, dtype=torch.int64) if group is None else group).numpy().view(np.uint64)
    rows = _rows(zeros, weight), _rows(scales, weight)
    return _checked(weight, loops.from_rows(_octets(words), bits, *rows, order, weight.numpy()))


def from_columns(
    words: torch.Tensor, shifts: tuple[int, ...], zeros: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """Return the weights (q − z) · s, float32 [8W, in].

    Args:
        words: int32 [in, W]; each holds the 4-bit codes q of eight outputs for one input.
        shifts: by how many bits the code of each of the eight outputs lies above the lowest bit.
        zeros: z, float32 [8W, G], for groups of equal size that lie one after the other.
        scales: s, float32 [8W, G].

    Raises:
        NotFiniteError: a weight is NaN or infinite.
    """
    weight = fresh_memory.empty(words.shape[1] * 8, words.shape[0])
    columns, rows = words.T.contiguous().numpy(), (_rows(zeros, weight), _rows(scales, weight))
    return _checked(weight, loops.from_columns(columns, np.array(shifts), *rows, weight.numpy()))


def from_octets(
    octets: torch.Tensor, table: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]
) -> torch.Tensor:
    """Return v · s, where v are the one or two numbers that each byte stands for: float32 [R, N] or [R, 2N].

    Blocks at the right and lower edge may be smaller. With blocks of 2 x 2, bytes [3, 3] that all stand for 1 and the
    scales [[2, 3], [4, 5]] become [[2, 2, 3], [2, 2, 3], [4, 4, 5]].

    Args:
        octets: uint8 [R, N].
        table: float32 [256, 1] or [256, 2], the numbers of each byte.
        scales: s, float32, one of each block of weights.
        block: rows and columns of a block.

    Raises:
        NotFiniteError: a product is NaN or infinite.
    """
    numbers = table.shape[1]
    weight = fresh_memory.empty(len(octets), octets.shape[1] * numbers)
    values = table.contiguous().view(torch.float32 if numbers == 1 else torch.int64).flatten()
    found = loops.from_table(
        octets.contiguous().numpy(), values.numpy(), scales.contiguous().numpy(), *block, weight.numpy()
    )
    return _checked(weight, found)


def finite(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight that was computed otherwise; raise `NotFiniteError` where a value is NaN or infinite."""
    return _checked(weight, bool(torch.isfinite(weight).all()))


def table_of(dtype: torch.dtype) -> torch.Tensor:
    """Return the number that each byte stands for in an 8-bit dtype, float32 [256, 1]."""
    return torch.arange(256, dtype=torch.uint8).view(dtype).float()[:, None]


def e2m1_pairs() -> torch.Tensor:
    """Return the two FP4 numbers that each byte stands for, the low half first, float32 [256, 2].

    The byte 0x2A holds the codes 10 and 2: −1.0 and 1.0.
    """
    values = torch.tensor(E2M1)
    return torch.stack([values.repeat(16), values.repeat_interleave(16)], 1)


def _checked(weight: torch.Tensor, is_finite: bool) -> torch.Tensor:
    if not is_finite:
        raise NotFiniteError(weight)
    return weight


def _octets(words: torch.Tensor) -> np.ndarray:
    """Return the bytes of words, uint8 [R, 4W], the lowest bits first."""
    octets: np.ndarray = words.contiguous().numpy().astype("<i4", copy=False).view(np.uint8)
    return octets


def _rows(values: torch.Tensor, weight: torch.Tensor) -> np.ndarray:
    """Return values with a row for each of a weight's."""
    rows: np.ndarray = values.expand(len(weight), -1).contiguous().numpy()
    return rows


def powers_of_two(octets: torch.Tensor) -> torch.Tensor:
    """Return the scales that bytes stand for, float32: 2^(byte − 127), and NaN for 255.

    The format E8M0 of the OCP Microscaling Formats (MX) Specification 1.0, section 5.4.1. The byte 126 is 0.5.
    """
    return octets.contiguous().view(torch.float8_e8m0fnu).float()
