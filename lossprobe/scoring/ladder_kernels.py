"""Compiled CPU loops for the temperature ladder of a logit row, see `ladder`.

Powers are float32, and so are their sums over a block; sums of blocks are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop
from lossprobe.exponential import FUSED, LEAST_OF_TWO, power_of_two
from lossprobe.instructions import WIDE
from lossprobe.scoring.kernels import REORDERED, ZERO

BLOCK = 1024 if WIDE else 512  # entries whose sums are float32: at most 64 in each lane of a vector
OCTAVES = 5  # temperatures T, T/2, … T/16 whose sums `add_ladder` makes from one set of exponentials
# Numbers below are not squared twice: results below 2^(-126) are no normal float32, and slow to compute.
SMALLEST = np.float32(2.0**-31)


@compiled_loop(fastmath=FUSED)
def _powers(shifted: Any, factor: Any, out: Any) -> None:
    """Fill `out` with 2^(shifted · factor).

    A loop of its own: together with the sums it took 1.2 times as long, as vectors lack registers for both.
    """
    for i in range(shifted.size):
        out[i] = power_of_two(shifted[i], factor)


@compiled_loop(fastmath=REORDERED)
def _power_sums(power: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return Σ x, Σ x², Σ x⁴, Σ x⁸ and Σ x¹⁶ over the entries x of a block, each at least 2⁻¹²⁶.

    Squares and eighth powers count as 2⁻⁶² where they are smaller, fourth and sixteenth as 2⁻¹²⁴.
    """
    sum1, sum2, sum4, sum8, sum16 = ZERO, ZERO, ZERO, ZERO, ZERO
    for i in range(power.size):
        x = power[i]
        sum1 += x
        x = SMALLEST if x < SMALLEST else x
        x *= x
        sum2 += x
        x *= x
        sum4 += x
        x = SMALLEST if x < SMALLEST else x
        x *= x
        sum8 += x
        x *= x
        sum16 += x
    return sum1, sum2, sum4, sum8, sum16


@compiled_loop(fastmath=REORDERED)
def shift(z: Any, top: Any, least: Any, out: Any) -> None:
    """Fill `out` with z − top, at least `least`, and NaN of NaN."""
    for i in range(z.size):
        s = z[i] - top
        out[i] = least if s < least else s


@compiled_loop(fastmath=REORDERED)
def add_ladder(z: Any, top: Any, factors: Any, room: Any, sums: Any) -> None:
    """Add Σ 2^((z − top) · 2ʲ · factor) over a row z to `sums`, for j from 0 to 4.

    Powers so small that no sum shows them count as more than they are, since numbers below 2⁻¹²⁶ are slow to compute:
    up to 2⁻⁶² each, where the top adds 1.

    Args:
        z: float32 [V], logits.
        top: float32, the largest of them.
        factors: float32 [F], inverse temperatures, times log₂ e; the largest is at most twice the smallest.
        room: two float32 [BLOCK], overwritten.
        sums: float64 [F, 5].
    """
    shifted, power = room
    least = LEAST_OF_TWO / factors.max()
    for start in range(0, z.size, BLOCK):
        size = min(BLOCK, z.size - start)
        shift(z[start : start + size], top, least, shifted)
        for at in range(len(factors)):
            _powers(shifted[:size], factors[at], power)
            found = _power_sums(power[:size])
            for step in range(OCTAVES):
                sums[at, step] += found[step]
