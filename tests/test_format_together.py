"""Numbers side by side."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.units import format_together


@pytest.mark.parametrize(
    ("values", "choices", "shown"),
    [
        ([0.002, -0.001], {"signed": True}, ["+0.0020", "-0.0010"]),
        ([0.01, 0.0100001], {}, ["0.0100000", "0.0100001"]),
        ([0.0, -0.0], {"signed": True}, ["0.0000", "0.0000"]),
        ([0.00001], {}, ["0.00001"]),
        ([-0.00001], {}, ["-0.00001"]),
        ([1234.5, 2], {"decimals": 2, "suffix": "%"}, ["1,234.50%", "2.00%"]),
        ([1e-30, 0.5], {"signed": True}, ["+1e-30", "+0.5"]),
        ([3e15], {}, ["3000000000000000.0"]),
        ([None, math.nan, math.inf, -math.inf, 1], {}, ["n/a", "n/a", "inf", "-inf", "1.0000"]),
        ([], {}, []),
    ],
)
def test_examples(values, choices, shown):
    assert format_together(values, **choices) == shown


@given(st.lists(st.floats(allow_nan=False), max_size=5), st.booleans())
def test_numbers_that_differ_never_look_alike(values, signed):
    shown = format_together([*values, 0.0], signed=signed)
    assert len(set(shown)) == len({*values, 0.0})
    for value, text in zip(values, shown, strict=False):
        assert float(text.replace(",", "")) == pytest.approx(value, rel=1e-9, abs=1e-4)
