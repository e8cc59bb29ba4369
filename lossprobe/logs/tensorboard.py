"""Reads the scalars of TensorBoard's event files, every event of them, without TensorBoard.

TensorBoard itself keeps a sample of 10,000 values a tag, and misses scalars that are stored as tensors. The numbers of
the fields are those of event.proto, summary.proto and tensor.proto of TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from lossprobe.logs.lines import LogFile
from lossprobe.logs.objects import Object, Objects
from lossprobe.logs.records import Records, Table
from lossprobe.logs.tfrecord import records

BLOCK = 1 << 14  # records of the log
EVENT_STEP, EVENT_SUMMARY, SUMMARY_VALUE = 2, 5, 1
VALUE_TAG, VALUE_NUMBER, VALUE_TENSOR = 1, 2, 8
TENSOR_TYPE, TENSOR_CONTENT = 1, 4
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # of the content of a tensor
LISTS = {5: "<f4", 6: "<f8"}  # fields with a list of numbers
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class _DamagedError(ValueError):
    """Bytes that are no message."""


def read_tensorboard(file: LogFile, prefix: str = "") -> Records:
    """Return the scalars of an event file; neighbouring events of one step are one record.

    Args:
        file: the file.
        prefix: put before each tag, such as "eval/" for a writer of its own in that folder.
    """
    table = Table()
    objects = Objects(table)
    block: list[Object] = []
    notes: list[str] = []
    broken = 0
    file.stream.seek(0)
    for data in records(file.stream, notes):
        try:
            step, scalars = _event(data)
        except (_DamagedError, struct.error):
            broken += 1
            continue
        for tag, value in scalars:
            if not block or block[-1]["step"] != step or prefix + tag in block[-1]:
                if len(block) == BLOCK:
                    objects.add_block(block)
                    block = []
                block.append({"step": step})
            block[-1][prefix + tag] = value
    objects.add_block(block)
    if broken:
        notes.append(f"{broken} events that cannot be read are left out")
    return table.records("tensorboard", notes=notes)


def _event(data: bytes) -> tuple[int, list[tuple[str, float]]]:
    """Return the step of an event and its scalars by tag."""
    step, scalars = 0, []
    for number, value in _fields(data):
        if number == EVENT_STEP and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == EVENT_SUMMARY and isinstance(value, bytes):
            scalars += [_scalar(each) for field, each in _fields(value) if field == SUMMARY_VALUE]
    return step, [each for each in scalars if each is not None]


def _scalar(data: Any) -> tuple[str, float] | None:
    """Return the tag and the number of a value; None for a picture, a histogram or text."""
    tag, number = "", None
    for field, value in _fields(data):
        if field == VALUE_TAG:
            tag = value.decode("utf-8", "replace")
        elif field == VALUE_NUMBER:
            number = struct.unpack("<f", value)[0]
        elif field == VALUE_TENSOR:
            number = _tensor(value)
    return None if number is None else (tag, number)


def _tensor(data: Any) -> float | None:
    """Return the number of a tensor that holds one; None for any other."""
    fields = dict(_fields(data))
    type = TYPES.get(fields.get(TENSOR_TYPE, 0))
    content = fields.get(TENSOR_CONTENT)
    for field, each in LISTS.items():
        if isinstance(fields.get(field), bytes):
            type, content = each, fields[field]
    if type is None or not content or len(content) != np.dtype(type).itemsize:
        return None
    return float(np.frombuffer(content, type)[0])


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: their number, and an int, or bytes for all that is not a varint."""
    if not isinstance(data, bytes):
        raise _DamagedError
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, place = _varint(data, place)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise _DamagedError
        if place + size > len(data):
            raise _DamagedError
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and the place after it."""
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
    raise _DamagedError
