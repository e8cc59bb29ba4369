"""Unpack codes of a few bits, and decode the number formats that quantisers store: FP4 and powers of two."""

from __future__ import annotations

from typing import Final

import torch

# FP4 (E2M1): one sign bit, then eight magnitudes. OCP Microscaling Formats (MX) Specification 1.0, section 5.3.3.
FP4_VALUES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

ROWS = 128  # rows that are worked on together: with 1,024 to 8,192 inputs they stay in the cache


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
    octets, mask = words.flatten().view(torch.uint8).view(rows, -1), (1 << bits) - 1
    if bits == 8:
        return octets
    if bits in (2, 4):
        return torch.stack([octets >> shift & mask for shift in range(0, 8, bits)], -1).view(rows, count)
    if bits == 3 and octets.shape[1] % 3 == 0:
        return _threes(octets)
    groups = torch.nn.functional.pad(octets, (0, -octets.shape[1] % bits)).view(rows, -1, bits)
    lines = groups[..., 0].long()  # eight codes fill as many bytes as a code has bits
    for place in range(1, bits):
        lines |= groups[..., place].long() << 8 * place
    codes = torch.empty(*lines.shape, 8, dtype=torch.uint8)
    for place in range(8):
        codes[..., place] = lines >> bits * place & mask
    return codes.view(rows, -1)[:, :count]


def _threes(octets: torch.Tensor) -> torch.Tensor:
    """Return the 3-bit codes of bytes, of which three hold eight: uint8 [R, 3N] → uint8 [R, 8N].

    Four codes are found at once, by their 12 bits: three times as fast as shifts.
    """
    numbers = torch.arange(1 << 12)
    fours = torch.stack([numbers >> 3 * place & 7 for place in range(4)], 1).byte().view(torch.int32).flatten()
    low, middle, high = (octets.view(len(octets), -1, 3)[..., place].int() for place in range(3))
    halves = torch.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], -1)
    return fours.index_select(0, halves.flatten()).view(torch.uint8).view(len(octets), -1)


def from_codes(
    codes: torch.Tensor, zeros: torch.Tensor, scales: torch.Tensor, group: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the weights (q − z) · s, float32 [out, in].

    Args:
        codes: q, uint8 [out, in].
        zeros: z, float32 [out, G] or [1, G].
        scales: s, float32 [out, G] or [1, G].
        group: int64 [in], the group of each input; without it G groups of equal size lie one after the other.
    """
    weight = torch.empty(codes.shape)
    zeros, scales = (each.expand(len(codes), -1) for each in (zeros, scales))
    for start in range(0, len(codes), ROWS):
        rows = slice(start, start + ROWS)
        part, zero, scale = weight[rows].copy_(codes[rows]), zeros[rows], scales[rows]
        if group is None:
            part.view(len(part), zero.shape[1], -1).sub_(zero[:, :, None]).mul_(scale[:, :, None])
        else:
            part.sub_(zero.index_select(1, group)).mul_(scale.index_select(1, group))
    return weight


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
    """Return FP8 numbers in float32, two at once if they are even: four times as fast as `Tensor.float`."""
    octets = numbers.contiguous().view(torch.uint8).flatten()
    table = torch.arange(256, dtype=torch.uint8).view(numbers.dtype).float()
    if len(octets) % 2:
        return table.index_select(0, octets.int()).view(numbers.shape)
    pairs = torch.stack([table.repeat(256), table.repeat_interleave(256)], 1).view(torch.int64).flatten()
    return pairs.index_select(0, octets.view(torch.uint16).int()).view(torch.float32).view(numbers.shape)


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
