"""The exponential of the compiled CPU loops, in float32.

A file of its own, since statistics of logits and attention both need it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from lossprobe.compiler import kept, numba
from lossprobe.instructions import bits_of_float32, float32_of_bits

# LLVM's fast-math flags that allow fused multiply-add, but no change of the order of operations.
FUSED: Final = {"contract", "nsz"}

LOG2E: Final = np.float32(1.0 / math.log(2.0))
# ln 2 in two parts (Cody and Waite 1980): the first has few bits, so that its products with small integers are exact.
LN2_HIGH: Final = np.float32(355.0 / 512.0)
LN2_LOW: Final = np.float32(math.log(2.0) - 355.0 / 512.0)
# Taylor series of e^r up to r^7, off by at most 5.4e-9 for |r| ≤ ln(2)/2.
TERMS: Final = tuple(np.float32(1.0 / math.factorial(power)) for power in range(8))
# Taylor series of 2^r up to r^7, off by at most 5.4e-9 for |r| ≤ 1/2.
TERMS_OF_TWO: Final = tuple(np.float32(math.log(2.0) ** power / math.factorial(power)) for power in range(8))
ROUNDER: Final = np.float32(1.5 * 2**23)  # a float32 added to this is rounded to a whole number, in its last bits
LEAST: Final = np.float32(-87.0)  # e^s of a smaller s is not a normal float32 and counts as 0


@kept
@numba.njit(nogil=True, fastmath=FUSED, error_model="numpy")
def exponential(s: Any) -> Any:
    """Return e^s of a float32 s ≤ 0 with a relative error of 8e-8, 0 below `LEAST`, NaN of NaN.

    e^s = 2ⁿ · e^r, where n is the whole number nearest to s / ln 2 and r = s − n ln 2 (Cody and Waite 1980). r is
    computed in two steps, which must not be reordered; 2ⁿ is made by its float32 bits.
    """
    _, one, t2, t3, t4, t5, t6, t7 = TERMS
    clipped = LEAST if s < LEAST else s
    n = np.floor(clipped * LOG2E + np.float32(0.5))
    r = clipped - n * LN2_HIGH
    r = r - n * LN2_LOW
    series = one + r * (one + r * (t2 + r * (t3 + r * (t4 + r * (t5 + r * (t6 + r * t7))))))
    power = float32_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
    return np.float32(0.0) if s < LEAST else series * power


@kept
@numba.njit(nogil=True, fastmath=FUSED, error_model="numpy")
def power_of_two(t: Any) -> Any:
    """Return 2^t of a float32 t ≤ 0 with a relative error of 7e-8; 2^−126 for all t below −126, NaN of NaN.

    2^t = 2ⁿ · 2^r, where n is the whole number nearest to t. It takes half the steps of `exponential`, as n is
    subtracted without an error and added to the exponent of the result.
    """
    one, t1, t2, t3, t4, t5, t6, t7 = TERMS_OF_TWO
    clipped = np.float32(-126.0) if t < np.float32(-126.0) else t
    whole = clipped + ROUNDER
    r = clipped - (whole - ROUNDER)
    series = one + r * (t1 + r * (t2 + r * (t3 + r * (t4 + r * (t5 + r * (t6 + r * t7))))))
    return float32_of_bits(bits_of_float32(series) + (bits_of_float32(whole) << np.int32(23)))
