"""The exponential of the compiled CPU loops, in float32.

A file of its own, since statistics of logits and attention both need it.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from lossprobe.compiler import compiled_loop
from lossprobe.instructions import bits_of_float32, float32_of_bits, product_sum

# LLVM's fast-math flags that allow fused multiply-add, but no change of the order of operations.
FUSED: Final = {"contract", "nsz"}

LOG2E: Final = np.float32(1.0 / math.log(2.0))
# ln 2 in two parts (Cody and Waite 1980): the first has few bits, so that its products with small integers are exact.
LN2_HIGH: Final = np.float32(355.0 / 512.0)
LN2_LOW: Final = np.float32(math.log(2.0) - 355.0 / 512.0)
# The last coefficients of 1 + r + … up to r^6, which is e^r for |r| ≤ ln(2)/2 up to a relative error of 3.7e-9: the
# least that the largest error can be, found by linear programming. The Taylor series up to r^7 is off by 5.4e-9.
TERMS: Final = tuple(map(np.float32, (0.49999994, 0.16666521, 0.04166839, 0.008368745, 0.001381454)))
# The same for 2^r = 1 + r ln 2 + …, |r| ≤ 1/2, with a relative error of 3.6e-9.
LN2: Final = np.float32(math.log(2.0))
TERMS_OF_TWO: Final = tuple(map(np.float32, (0.24022648, 0.055503596, 0.009618518, 0.0013390959, 0.00015324316)))
ROUNDER: Final = np.float32(1.5 * 2**23)  # a float32 added to this is rounded to a whole number, in its last bits
BIASED: Final = np.float32(1.5 * 2**23 + 127)  # the same, with the bias of a float32's exponent added to the number
LEAST: Final = np.float32(-87.0)  # e^s of a smaller s is not a normal float32 and counts as 0
LEAST_OF_TWO: Final = np.float32(-125.0)  # 2^t of a t below it by more than 1 is not a normal float32


@compiled_loop(fastmath=FUSED)
def exponential(s: Any) -> Any:
    """Return e^s of a float32 s ≤ 0 with a relative error of 8e-8, 0 below `LEAST`, NaN of NaN.

    e^s = 2ⁿ · e^r, where n is the whole number nearest to s / ln 2 and r = s − n ln 2 (Cody and Waite 1980). r is
    computed in two steps, which must not be reordered; 2ⁿ is made by its float32 bits, the last ones of n + `BIASED`.
    """
    one = np.float32(1.0)
    t2, t3, t4, t5, t6 = TERMS
    clipped = LEAST if s < LEAST else s  # numbers below would be slow to compute
    whole = product_sum(clipped, LOG2E, BIASED)
    n = whole - BIASED
    r = product_sum(-n, LN2_HIGH, clipped)
    r = product_sum(-n, LN2_LOW, r)
    series = one + r * (one + r * (t2 + r * (t3 + r * (t4 + r * (t5 + r * t6)))))
    power = float32_of_bits(bits_of_float32(whole) << np.int32(23))
    return np.float32(0.0) if s < LEAST else series * power


@compiled_loop(fastmath=FUSED)
def power_of_two(s: Any, factor: Any) -> Any:
    """Return 2^t, t = s · factor, of a float32 t from −126 to 0 with a relative error of 7.5e-8.

    2^t = 2ⁿ · 2^r, where n is the whole number nearest to t. It takes fewer steps than `exponential`, as n is
    subtracted without an error and added to the exponent of the result. Where the processor has fused multiply-add, t
    is not rounded; else the error grows by |t| · 4.2e-8.
    """
    one = np.float32(1.0)
    t2, t3, t4, t5, t6 = TERMS_OF_TWO
    whole = product_sum(s, factor, ROUNDER)
    r = product_sum(s, factor, ROUNDER - whole)
    series = one + r * (LN2 + r * (t2 + r * (t3 + r * (t4 + r * (t5 + r * t6)))))
    return float32_of_bits(bits_of_float32(series) + (bits_of_float32(whole) << np.int32(23)))
