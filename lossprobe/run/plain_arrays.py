"""Arrow arrays of numbers and texts, and numpy arrays of Arrow's, without pandas.

`pyarrow.array` and `to_numpy` import pandas to see whether it made the values, and `pyarrow.dataset` too. That takes an
eighth of a second, and a pass needs pandas for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def to_arrow(values: Any, type: pa.DataType) -> pa.Array:
    """Return values as an Arrow array.

    Args:
        values: numbers or truths, as an array [N], a masked one or a sequence; or a sequence of texts or bytes; or an
            Arrow array, which is returned as it is. For dictionaries what pyarrow takes. What is masked is absent, and
            None in a sequence.
        type: the type of the array.

    Raises:
        OverflowError: a value is not in the range of the type.
    """
    if isinstance(values, pa.Array):
        return values
    if pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_binary(type):
        return _texts(values, type)
    if pa.types.is_dictionary(type):
        return pa.array(values, type)  # a run's own are Arrow arrays already
    plain, absent = _divided(values)
    numbers = _exactly(np.asarray(plain), type.to_pandas_dtype())
    data = _bits(numbers) if pa.types.is_boolean(type) else pa.py_buffer(numbers)
    return pa.Array.from_buffers(type, len(numbers), [None if absent is None else _bits(~absent), data])


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Return the numbers or truths of an Arrow array [N], in its own type; those that are absent may be anything."""
    _, data = array.buffers()
    if data is None:  # no values
        return np.zeros(0, array.type.to_pandas_dtype())
    if pa.types.is_boolean(array.type):
        return _flags(data, array)
    return np.frombuffer(data, array.type.to_pandas_dtype())[array.offset : array.offset + len(array)]


def absent_of(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values of an Arrow array are absent: bool [N]."""
    present = array.buffers()[0]
    return np.zeros(len(array), np.bool_) if present is None else ~_flags(present, array)


def _divided(values: Any) -> tuple[Any, npt.NDArray[np.bool_] | None]:
    """Return numbers and which of them are absent, None where all are there."""
    if isinstance(values, np.ma.MaskedArray):
        return values.data, np.ma.getmaskarray(values)
    if not isinstance(values, np.ndarray) and any(value is None for value in values):
        return [0 if value is None else value for value in values], np.array([value is None for value in values])
    return values, None


def _texts(values: Sequence[str | bytes | None], type: pa.DataType) -> pa.Array:
    pieces = [piece.encode() if isinstance(piece, str) else piece or b"" for piece in values]
    absent = np.array([piece is None for piece in values], np.bool_)
    edges = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
    offsets = _exactly(edges, np.int64 if pa.types.is_large_string(type) else np.int32)
    data = [_bits(~absent) if absent.any() else None, pa.py_buffer(offsets), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(type, len(pieces), data)


def _exactly(values: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    """Return values [N] in another dtype; as floats they are rounded, as integers they must be the same."""
    converted: npt.NDArray[Any] = np.ascontiguousarray(values, dtype)
    rounds = converted.dtype.kind == "f"
    if not rounds and not np.can_cast(values.dtype, dtype, "safe") and not np.array_equal(converted, values):
        raise OverflowError(f"values from {values.min()} to {values.max()} do not fit into {np.dtype(dtype)}")
    return converted


def _bits(flags: npt.NDArray[np.bool_]) -> pa.Buffer:
    """Return truths as Arrow has them, eight in a byte."""
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def _flags(bits: pa.Buffer, array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return the truths for the values of an array from a buffer of `_bits`."""
    flags = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")
    return flags[array.offset : array.offset + len(array)].astype(np.bool_)
