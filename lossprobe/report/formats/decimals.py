"""A compiled loop that finds the shortest decimal numbers of float32 numbers, several at once by vector instructions.

A float32 gets the shortest decimal number that is read as the same float32, and of these the nearest, as Arrow writes
it. The method is that of Giulietti (2020), "The Schubfach way to render doubles": a float is c · 2^q, and decimal
numbers in 10^k with k = ⌊log10 2^q⌋ are at least as close together as floats there, those in 10^(k+1) are not. So at
most one number in 10^(k+1) is read as this float, and if none is, one of the two in 10^k around it. The ends of the
interval are compared exactly, as multiples of a quarter of 10^k rounded to odd.

Nothing branches, since a branch that is not foreseen costs as much as a number here. Whole numbers are int64
throughout: numba would make a float of an int64 and a uint64.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from lossprobe.compiler import kept, numba

LEAST_POWER, MOST_POWER = -31, 45  # of ten, by which a float32 is multiplied
INFINITE = 0x7F800000  # bits of a float32
# Places of the fields of a decimal number in its int64, lowest first: the sign, the power of ten, the number of digits,
# and the digits, which may end in zeros. A float without digits (0, infinite, or none) has its bits in their place.
POWER, LENGTH, DIGITS = 8, 16, 24
POWER_OF_ONE = 128  # what the field of the power holds for 10^0


def _power(exponent: int) -> int:
    """Return 10^exponent scaled by a power of two to 64 bits, rounded up."""
    value = Fraction(10) ** exponent
    shift = 63 - _floor_log2(exponent)
    scaled = value * Fraction(2) ** shift
    return -(-scaled.numerator // scaled.denominator)


def _floor_log2(exponent: int) -> int:
    """Return ⌊log2 10^exponent⌋."""
    value = Fraction(10) ** exponent
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if Fraction(2) ** guess <= value else guess - 1


_POWERS = [_power(exponent) for exponent in range(LEAST_POWER, MOST_POWER + 1)]
UPPER = np.array([power >> 32 for power in _POWERS], np.int64)
LOWER = np.array([power & 0xFFFFFFFF for power in _POWERS], np.int64)
LOG2 = np.array([_floor_log2(exponent) for exponent in range(LEAST_POWER, MOST_POWER + 1)], np.int64)


def inlined(function: Any) -> Any:
    """Return a function that becomes part of its caller: a call would count who refers to each array, atomically."""
    return numba.njit(nogil=True, error_model="numpy", inline="always")(function)


@inlined
def _rounded_to_odd(power: Any, scaled: Any) -> Any:
    """Return ⌊power · scaled / 2^64⌋ for a power of the table, made odd if anything but the last bit is cut off."""
    high = UPPER[power] * scaled + ((LOWER[power] * scaled) >> 32)
    return (high >> 32) | np.int64((high & 0xFFFFFFFF) > 1)


@inlined
def _shortest(bits: Any) -> Any:
    """Return digits, which may end in zeros, and exponent of ten of a positive, finite float32, given as its bits."""
    fraction, exponent = bits & 0x7FFFFF, bits >> 23
    c = fraction | 0x800000 if exponent else fraction
    q = (exponent if exponent else 1) - 150
    # 1 where the next smaller float is half as far away as the next greater one
    closer = np.int64(fraction == 0) & np.int64(exponent > 1)
    # ⌊log10 2^q⌋, or ⌊log10 (3/4 · 2^q)⌋; exact for all q of a float32
    k = (q * 1262611 - 524031 * closer) >> 22
    power = np.uint64(-k - LEAST_POWER)  # unsigned, which no one counts from the end of a table
    shift = q + LOG2[power] + 1
    odd = c & 1
    low = _rounded_to_odd(power, (4 * c - 2 + closer) << shift) + odd
    value = _rounded_to_odd(power, (4 * c) << shift)
    high = _rounded_to_odd(power, (4 * c + 2) << shift) - odd
    whole = value >> 2
    tens = whole * 3435973837 >> 35  # ⌊whole / 10⌋, exact below 2^32
    below, above = low <= 40 * tens, 40 * tens + 40 <= high
    shorter = (whole >= 10) & (below != above)
    tens += np.int64(above)
    below, above = low <= 4 * whole, 4 * whole + 4 <= high
    middle = 4 * whole + 2
    nearer = (value > middle) | ((value == middle) & ((whole & 1) == 1))
    whole += np.int64(above if below != above else nearer)
    return (tens if shorter else whole), k + np.int64(shorter)


# Nothing is allocated, so the references to arrays need no count.
@kept
@numba.njit(nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload, untyped-decorator]
def to_decimals(values: Any) -> None:
    """Replace float32 numbers, int64 with their 32 bits, by decimal numbers with the fields above."""
    for place in range(values.size):
        bits = values[place] & 0x7FFFFFFF
        digits, power = _shortest(bits)
        length = np.int64(1)
        for more in (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000):
            length += np.int64(digits >= more)
        fields = digits << DIGITS | length << LENGTH | (power + POWER_OF_ONE) << POWER
        some = (bits > 0) & (bits < INFINITE)
        values[place] = (fields if some else bits << DIGITS) | values[place] >> 31
