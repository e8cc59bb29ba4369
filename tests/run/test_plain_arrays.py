"""Arrow arrays that are made without pandas are those that pyarrow itself makes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lossprobe.run.plain_arrays import absent_of, to_arrow, to_numpy

NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_()]
TEXTS = [pa.string(), pa.large_string(), pa.binary()]


def drawn(type_, count):
    return np.random.default_rng(count).integers(0, 2, count).astype(type_.to_pandas_dtype())


@pytest.mark.parametrize("type_", NUMBERS, ids=str)
@pytest.mark.parametrize("count", [0, 1, 8, 1_001])
def test_numbers_and_truths(type_, count):
    values, absent = drawn(type_, count), np.random.default_rng(1).random(count) < 0.3
    made = to_arrow(values, type_)
    made.validate(full=True)
    assert made.equals(pa.array(values, type_))
    assert to_arrow(values.tolist(), type_).equals(made)
    made = to_arrow(np.ma.masked_array(values, absent), type_)
    made.validate(full=True)
    assert made.equals(pa.array(values, type_, mask=absent))
    assert made.null_count == absent.sum()
    listed = [None if missing else value for value, missing in zip(values.tolist(), absent, strict=True)]
    assert to_arrow(listed, type_).equals(made)
    for start in (0, min(3, count)):
        part = made.slice(start)
        assert (absent_of(part) == absent[start:]).all()
        assert (to_numpy(part) == values[start:])[~absent[start:]].all()
        assert to_numpy(part).dtype == values.dtype


@pytest.mark.parametrize("type_", TEXTS, ids=str)
@pytest.mark.parametrize("values", [[], ["é", "", None, "plain"], [None], ["a"] * 9], ids=repr)
def test_texts(type_, values):
    values = [value and value.encode() for value in values] if pa.types.is_binary(type_) else values
    made = to_arrow(values, type_)
    made.validate(full=True)
    assert made.equals(pa.array(values, type_))
    assert to_arrow(made, type_) is made


def test_floats_keep_nan_and_infinities_and_are_rounded():
    values = np.array([np.nan, np.inf, -np.inf, 0.1])
    assert np.array_equal(to_numpy(to_arrow(values, pa.float32())), values.astype(np.float32), equal_nan=True)
    assert to_arrow(values, pa.float64()).null_count == 0


@pytest.mark.parametrize(
    ("value", "type_"), [(2**31, pa.int32()), (-129, pa.int8()), (0.5, pa.int64()), (2, pa.bool_())]
)
def test_what_does_not_fit_is_refused(value, type_):
    with pytest.raises(OverflowError, match="do not fit"):
        to_arrow([value, 0], type_)
