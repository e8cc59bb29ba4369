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
    if bits in (2, 4, 8):
        octets = words.contiguous().view(torch.uint8)
        if bits == 8:
            return octets
        return torch.stack([octets >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], -1).view(rows, count)
    groups = torch.nn.functional.pad(words, (0, -words.shape[1] % bits)).view(rows, -1, bits)
    codes = torch.empty(rows, groups.shape[1] * 32, dtype=torch.uint8)
    for place in range(32):  # 32 codes fill exactly `bits` words
        word, offset = divmod(place * bits, 32)
        low = min(bits, 32 - offset)  # how many bits lie in the first word
        code = groups[:, :, word] >> offset & (1 << low) - 1
        if low < bits:
            code = code | (groups[:, :, word + 1] & (1 << bits - low) - 1) << low
        codes[:, place::32] = code
    return codes[:, :count]


def unpack_fp4(octets: torch.Tensor) -> torch.Tensor:
    """Return the FP4 values of bytes that hold two each, the low half first: uint8 [..., N] → float32 [..., 2N].

    The byte 0x2A holds the codes 10 and 2: −1.0 and 1.0.
    """
    pairs = torch.tensor([(FP4_VALUES[octet & 15], FP4_VALUES[octet >> 4]) for octet in range(256)])
    return pairs[octets.int()].flatten(-2)


def powers_of_two(octets: torch.Tensor) -> torch.Tensor:
    """Return the scales that bytes stand for, float32: 2^(byte − 127), and NaN for 255.

    The format E8M0 of the OCP Microscaling Formats (MX) Specification 1.0, section 5.4.1. The byte 126 is 0.5.
    """
    return octets.contiguous().view(torch.float8_e8m0fnu).float()
