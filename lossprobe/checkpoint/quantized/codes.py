"""Unpack codes of a few bits, and decode the number formats that quantisers store: FP4 and powers of two."""

from __future__ import annotations

from typing import Final

import torch

# FP4 (E2M1): one sign bit, then eight magnitudes. OCP Microscaling Formats (MX) Specification 1.0, section 5.3.3.
FP4_VALUES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes that lie in 32-bit words one after the other, the least significant bit first.

    A code may begin in one word and end in the next. The word 0x00000021 holds the 4-bit codes 1, 2, 0, 0, 0, 0, 0, 0.

    Args:
        words: int32 [R, W].
        bits: bits of a code, 1 to 8.

    Returns:
        uint8 [R, W · 32 // bits].
    """
    rows, count = words.shape[0], words.shape[1] * 32 // bits
    octets, mask = words.contiguous().view(torch.uint8), (1 << bits) - 1
    if bits == 8:
        return octets
    if bits in (2, 4):
        return torch.stack([octets >> shift & mask for shift in range(0, 8, bits)], -1).view(rows, count)
    groups = torch.nn.functional.pad(octets, (0, -octets.shape[1] % bits)).view(rows, -1, bits)
    lines = groups[..., 0].long()  # eight codes fill as many bytes as a code has bits
    for place in range(1, bits):
        lines |= groups[..., place].long() << 8 * place
    codes = torch.empty(*lines.shape, 8, dtype=torch.uint8)
    for place in range(8):
        codes[..., place] = lines >> bits * place & mask
    return codes.view(rows, -1)[:, :count]


def look_up(octets: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the two numbers that each byte stands for: uint8 [..., N] → float32 [..., 2N].

    Args:
        octets: the bytes.
        first: float32 [256], the first number of each byte.
        second: float32 [256], the second one.
    """
    pairs = torch.stack([first, second], 1).view(torch.int64).flatten()  # as one value: three times as fast
    found = pairs.index_select(0, octets.flatten().int())
    return found.view(torch.float32).view(*octets.shape[:-1], -1)


def fp8_values(numbers: torch.Tensor) -> torch.Tensor:
    """Return FP8 numbers in float32, three times as fast as `Tensor.float`."""
    octets = torch.arange(256, dtype=torch.uint8)
    table = octets.view(numbers.dtype).float()
    return table.index_select(0, numbers.contiguous().view(torch.uint8).flatten().int()).view(numbers.shape)


def unpack_fp4(octets: torch.Tensor) -> torch.Tensor:
    """Return the FP4 values of bytes that hold two each, the low half first: uint8 [..., N] → float32 [..., 2N].

    The byte 0x2A holds the codes 10 and 2: −1.0 and 1.0.
    """
    table = torch.tensor(FP4_VALUES)
    return look_up(octets, table.repeat(16), table.repeat_interleave(16))


def powers_of_two(octets: torch.Tensor) -> torch.Tensor:
    """Return the scales that bytes stand for, float32: 2^(byte − 127), and NaN for 255.

    The format E8M0 of the OCP Microscaling Formats (MX) Specification 1.0, section 5.4.1. The byte 126 is 0.5.
    """
    return octets.contiguous().view(torch.float8_e8m0fnu).float()
