"""Reads the records of a TensorFlow record file, as TensorBoard's event files are, and checks their checksums.

A record is its length (8 bytes), the checksum of the length (4), the data, and the checksum of the data (4), little-
endian. The checksum is CRC-32C (Castagnoli, RFC 3720, appendix B.4), turned by 15 bits and increased by a constant.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from lossprobe.units import plural

POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed
MASK_DELTA = 0xA282EAD8
HEADER = struct.Struct("<QI")
LARGEST_CHECKED = 1 << 14  # bytes; a scalar has about 50, and a picture's checksum would take seconds
LARGEST = 1 << 30


def _table() -> tuple[int, ...]:
    values = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        values.append(value)
    return tuple(values)


TABLE = _table()


def masked_checksum(data: bytes) -> int:
    """Return the checksum that stands beside data.

    >>> hex(masked_checksum(b"123456789"))  # CRC-32C is 0xe3069283
    '0xc78ab0e5'
    """
    value = 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return (((value >> 15) | (value << 17)) + MASK_DELTA) & 0xFFFFFFFF


def starts_record(data: bytes) -> bool:
    """Return whether bytes start with the length of a record and its checksum."""
    return len(data) >= HEADER.size and masked_checksum(data[:8]) == HEADER.unpack_from(data)[1]


def records(stream: IO[bytes], notes: list[str]) -> Iterator[bytes]:
    """Yield the data of each record; a damaged one is left out, and a line about it added to `notes`.

    Args:
        stream: the file, at its start.
        notes: where to add lines.
    """
    place = damaged = 0
    while header := stream.read(HEADER.size):
        size = HEADER.unpack(header)[0] if len(header) == HEADER.size else 0
        if not starts_record(header) or size > LARGEST:
            notes.append(f"no record begins at byte {place}: what follows is left out")
            break
        data, checksum = stream.read(size), stream.read(4)
        if len(data) + len(checksum) < size + 4:
            notes.append(f"the last record, at byte {place}, is broken off")
            break
        place += HEADER.size + size + 4
        if size <= LARGEST_CHECKED and masked_checksum(data) != int.from_bytes(checksum, "little"):
            damaged += 1
            continue
        yield data
    if damaged:
        notes.append(f"{plural(damaged, 'record')} left out: the checksum is wrong")
