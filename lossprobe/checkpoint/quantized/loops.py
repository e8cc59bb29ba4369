"""Compiled CPU loops that turn the codes of a quantised weight into float32, in one pass over the weight.

The functions of torch would go over it once for each operation and need room for each intermediate result. Compiling
takes some seconds once; the code is cached on disk, see `compiler`. Every number is rounded as torch rounds it: the
loops have no fused multiply-add. They also say whether all numbers are finite, which costs little while a row is still
in the cache, and a second reading of the whole weight later.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop


@compiled_loop()
def _scale(codes: Any, zeros: Any, scales: Any, out: Any) -> None:
    """Fill `out` with (q − z) · s of one row, whose groups of equal size lie one after the other."""
    codes, out = codes.reshape(zeros.size, -1), out.reshape(zeros.size, -1)
    for g in range(zeros.size):
        zero, scale = zeros[g], scales[g]
        for i in range(out.shape[1]):
            out[g, i] = (np.float32(codes[g, i]) - zero) * scale


@compiled_loop()
def _unpack_threes(octets: Any, eights: Any) -> None:
    """Spread the eight 3-bit codes of every three bytes to the bytes of a number.

    In each of three steps the upper half of those that lie together moves up: four of eight, two of four, one of two.
    """
    four, two, one = np.uint64(0xFFF), np.uint64(0x0000003F0000003F), np.uint64(0x0007000700070007)
    for i in range(eights.size):
        line = np.uint64(octets[3 * i])
        line |= np.uint64(octets[3 * i + 1]) << np.uint64(8) | np.uint64(octets[3 * i + 2]) << np.uint64(16)
        line = (line & four) | (line << np.uint64(20) & four << np.uint64(32))
        line = (line & two) | (line << np.uint64(10) & two << np.uint64(16))
        eights[i] = (line & one) | (line << np.uint64(5) & one << np.uint64(8))


@compiled_loop()
def _unpack(octets: Any, bits: int, codes: Any) -> None:
    """Fill `codes`, as many as a multiple of eight, with the codes that lie in bytes, the lowest bits first."""
    if bits == 8:
        codes[: octets.size] = octets
    elif bits == 4:
        pairs = codes.view(np.uint16)  # as one number: vector instructions write them together
        for i in range(pairs.size):
            pairs[i] = np.uint16(octets[i] & 15) | np.uint16(octets[i] >> 4) << 8
    elif bits == 2:
        fours = codes.view(np.uint32)
        for i in range(fours.size):
            octet = np.uint32(octets[i])
            fours[i] = octet & 3 | (octet & 12) << 6 | (octet & 48) << 12 | (octet & 192) << 18
    elif bits == 3 and octets.size % 3 == 0:
        _unpack_threes(octets, codes.view(np.uint64))
    else:
        mask = np.uint64((1 << bits) - 1)
        for number in range(codes.size // 8):  # eight codes fill as many bytes as a code has bits
            start, line = number * bits, np.uint64(0)
            for place in range(min(bits, octets.size - start)):
                line |= np.uint64(octets[start + place]) << np.uint64(8 * place)
            for place in range(8):
                codes[8 * number + place] = line >> np.uint64(bits * place) & mask


@compiled_loop()
def unpack_rows(octets: Any, bits: int, codes: Any) -> None:
    """Fill each row of `codes`, uint8 [R, 8N], with the codes of a row of bytes, uint8 [R, B]."""
    for r in range(len(codes)):
        _unpack(octets[r], bits, codes[r])


@compiled_loop()
def _fill(table: Any, zeros: Any, scales: Any) -> None:
    """Fill `table` with (q − z) · s for each code q in each group of a row, the groups one after the other."""
    codes = table.size // zeros.size
    for g in range(zeros.size):
        for q in range(codes):
            table[g * codes + q] = (np.float32(q) - zeros[g]) * scales[g]


@compiled_loop()
def _look_up(octets: Any, bits: int, codes: Any, first: Any, table: Any, out: Any) -> None:
    """Fill `out` with what the codes of one row stand for.

    Args:
        octets: uint8 [B], the codes, the lowest bits first.
        bits: bits of a code.
        codes: uint8, room for them.
        first: uint32 [in], where the group of each input begins in `table`; half as wide as uint64, it leaves the cache
            more room.
        table: float32, from `_fill`: one place to look up, in place of two for z and s.
        out: float32 [in].
    """
    if bits == 4 and out.size == 2 * octets.size:  # the usual case, in 0.7 of the time
        for i in range(octets.size):
            out[2 * i] = table[np.uint64(first[2 * i]) + np.uint64(octets[i] & 15)]
            out[2 * i + 1] = table[np.uint64(first[2 * i + 1]) + np.uint64(octets[i] >> 4)]
    else:
        _unpack(octets, bits, codes)
        for i in range(out.size):
            out[i] = table[np.uint64(first[i]) + np.uint64(codes[i])]


@compiled_loop()
def _is_finite(row: Any) -> Any:
    """Return whether all float32 of a row are finite: NaN and infinity have an exponent of ones, and 1 more carries."""
    bits, carried = row.view(np.int32), np.int32(0)
    for i in range(bits.size):
        carried |= np.int32((bits[i] & np.int32(0x7F800000)) + np.int32(0x00800000))
    return carried >= 0


@compiled_loop()
def from_rows(octets: Any, bits: int, zeros: Any, scales: Any, group: Any, out: Any) -> Any:
    """Fill `out` with (q − z) · s, where the codes q of a row lie one after the other, the least significant bit first.

    Returns whether all are finite.

    Args:
        octets: uint8 [out, B], with at least in · bits / 8 bytes a row.
        bits: bits of a code, 1 to 8.
        zeros: z, float32 [out, G].
        scales: s, float32 [out, G].
        group: uint64 [in], the group of each input (of a signed number the loop would look whether it is negative);
            empty where groups of equal size lie one after the other.
        out: float32 [out, in].
    """
    inputs = out.shape[1]
    codes, finite = np.empty(-(-inputs // 8) * 8, np.uint8), True
    first, table = (group << np.uint64(bits)).astype(np.uint32), np.empty(zeros.shape[1] << bits, np.float32)
    for r in range(out.shape[0]):
        if group.size:
            _fill(table, zeros[r], scales[r])
            _look_up(octets[r], bits, codes, first, table, out[r])
        else:
            _unpack(octets[r], bits, codes)
            _scale(codes[:inputs], zeros[r], scales[r], out[r])
        finite &= _is_finite(out[r])
    return finite


@compiled_loop()
def from_columns(words: Any, shifts: Any, zeros: Any, scales: Any, out: Any) -> Any:
    """Fill `out` with (q − z) · s, where each word holds the 4-bit codes of eight outputs for one input.

    Returns whether all are finite.

    Args:
        words: int32 [out / 8, in].
        shifts: int64 [8], by how many bits the code of each of the eight outputs lies above the lowest bit.
        zeros: z, float32 [out, G].
        scales: s, float32 [out, G].
        out: float32 [out, in].
    """
    codes, finite = np.empty(out.shape[1], np.uint8), True
    for r in range(out.shape[0]):
        row, shift = words[r // 8], np.int32(shifts[r % 8])
        for i in range(codes.size):
            codes[i] = (row[i] >> shift) & 15
        _scale(codes, zeros[r], scales[r], out[r])
        finite &= _is_finite(out[r])
    return finite


@compiled_loop()
def from_table(octets: Any, table: Any, scales: Any, rows: int, columns: int, out: Any) -> Any:
    """Fill `out` with v · s, where v is what each byte stands for; return whether all are finite.

    Args:
        octets: uint8 [out, N].
        table: [256], the value of each byte: one float32, or an int64 with the bits of two.
        scales: s, float32 [R, C], of blocks; those at the right and lower edge may be smaller.
        rows: rows of a block.
        columns: columns of a block.
        out: float32 [out, in].
    """
    values, whole, finite = out.view(table.dtype), out.shape[1] % columns == 0, True
    for r in range(out.shape[0]):
        row, found, line, factors = octets[r], values[r], out[r], scales[r // rows]
        for i in range(found.size):
            found[i] = table[row[i]]
        if whole:
            blocks = line.reshape(factors.size, -1)
            for c in range(factors.size):
                for i in range(blocks.shape[1]):
                    blocks[c, i] *= factors[c]
        else:
            for c in range(factors.size):
                line[c * columns : (c + 1) * columns] *= factors[c]
        finite &= _is_finite(line)
    return finite
