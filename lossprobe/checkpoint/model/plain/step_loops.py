"""Compiled CPU loops for the steps between the matrix products of a Llama: each visits its numbers once.

They round after every operation, in torch's order, and are compiled without what would change that: results are those
of torch's operations to the byte.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from lossprobe.compiler import compiled_loop, numba

VECTOR: Final = 8  # numbers of a vector of torch's sums, for AVX2 and AVX-512 alike
SUMS: Final = 4 * VECTOR  # sums that torch makes side by side
STEPS: Final = 16  # numbers of each sum after which torch adds it to what was before, and begins it anew
ROWS: Final = 16  # rows that a thread does at once
SEVERAL: Final = 1 << 15  # numbers from which on threads share them, as with torch; to wait for each other takes longer


@compiled_loop()
def _sum_of_squares(x: Any, n: Any, sums: Any, rest: Any) -> Any:
    """Return the sum of the squares of row n of x [N, D / SUMS, SUMS]; `sums` and `rest` [SUMS] are overwritten."""
    for i in range(SUMS):
        sums[i] = rest[i] = np.float32(0)
    whole = x.shape[1] // STEPS * STEPS
    for start in range(0, whole, STEPS):
        for i in range(SUMS):
            one = np.float32(0)
            for step in range(STEPS):
                one += x[n, start + step, i] * x[n, start + step, i]
            sums[i] += one
    for step in range(whole, x.shape[1]):
        for i in range(SUMS):
            rest[i] += x[n, step, i] * x[n, step, i]
    for i in range(SUMS):
        sums[i] += rest[i]
    total = np.float32(0)
    for i in range(VECTOR):
        total += sums[i] + sums[VECTOR + i] + sums[2 * VECTOR + i] + sums[3 * VECTOR + i]
    return total


@compiled_loop()
def _normalise_rows(x: Any, weight: Any, epsilon: Any, out: Any, start: Any, stop: Any) -> None:
    """Fill rows `start` to `stop` of `out`; other arguments as of `normalise`."""
    parts = x.reshape(len(x), x.shape[1] // SUMS, SUMS)
    sums, rest = np.empty(SUMS, np.float32), np.empty(SUMS, np.float32)
    for n in range(start, stop):
        mean = _sum_of_squares(parts, n, sums, rest) / np.float32(x.shape[1])
        factor = np.float32(1) / np.sqrt(mean + epsilon)
        for i in range(x.shape[1]):
            out[n, i] = weight[i] * (x[n, i] * factor)


@compiled_loop(parallel=True)
def normalise(x: Any, weight: Any, epsilon: Any, out: Any) -> None:
    """Fill `out` with weight · x / √(mean of x² + ε) for each row.

    Args:
        x: float32 [N, D], D a multiple of `SUMS`.
        weight: float32 [D].
        epsilon: ε, a float32.
        out: float32 [N, D].
    """
    if x.size < SEVERAL:
        _normalise_rows(x, weight, epsilon, out, 0, len(x))
    else:
        for block in numba.prange(-(-len(x) // ROWS)):
            _normalise_rows(x, weight, epsilon, out, block * ROWS, min((block + 1) * ROWS, len(x)))


@compiled_loop()
def _turn_rows(heads: Any, cos: Any, sin: Any, start: Any, stop: Any) -> None:
    """Turn rows `start` to `stop` of heads [N, H, 2, D / 2]; cosines and sines as of `turn`."""
    for n in range(start, stop):
        at = n % len(cos)
        for head in range(heads.shape[1]):
            for i in range(heads.shape[3]):
                first, second = heads[n, head, 0, i], heads[n, head, 1, i]
                heads[n, head, 0, i] = first * cos[at, i] - second * sin[at, i]
                heads[n, head, 1, i] = second * cos[at, i] + first * sin[at, i]


@compiled_loop(parallel=True)
def turn(heads: Any, cos: Any, sin: Any) -> None:
    """Turn entry i of each head against entry i + D / 2, in place.

    Args:
        heads: float32 [N, H, 2, D / 2].
        cos: float32 [P, D], cosines by position; row n of the N has position n modulo P.
        sin: float32 [P, D], the sines.
    """
    if heads.size < SEVERAL:
        _turn_rows(heads, cos, sin, 0, len(heads))
    else:
        for block in numba.prange(-(-len(heads) // ROWS)):
            _turn_rows(heads, cos, sin, block * ROWS, min((block + 1) * ROWS, len(heads)))
