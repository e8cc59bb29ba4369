"""Compiled CPU loops over the rows of a chunk of logits, on all threads: statistics, histogram and ladder of each row.

A row's ladder is computed when its statistics are: its logits are in the cache then, and their largest is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop, numba
from lossprobe.scoring.counted_kernels import CODES, MOST, measure_counted_row
from lossprobe.scoring.kernels import REORDERED, measure_row
from lossprobe.scoring.ladder_kernels import BLOCK, add_ladder


@compiled_loop(parallel=True, fastmath=REORDERED)
def measure_rows(z: Any, picks: Any, scales: Any, scratch: Any, out: Any) -> None:
    """Compute the statistics of every row, the histogram of its probabilities, and the ladder's sums of some.

    Args:
        z: float32 [N, V], logits.
        picks: int64 [N, 2], the target of each row, below V, and the place of its ladder in `sums`, −1 for none.
        scales: number of bins in one nat of log p, and float32 [F], the factors of `ladder_kernels.add_ladder`.
        scratch: float32 [threads, V], overwritten.
        out: found float64 [N, 12], filled with the fields of `RowStatistics` in their order; bins float64 [N, 3, B],
            zeros, filled with the number of entries, their sum of p and the number of targets; tops float32 [N], filled
            with the largest logit of each row; sums float64 [S, F, 5], zeros, filled by `ladder_kernels.add_ladder`.
    """
    found, bins, tops, sums = out
    per_nat, factors = scales
    for part in numba.prange(len(scratch)):
        room = (np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32))
        for row in range(part, len(z), len(scratch)):
            tops[row] = measure_row(z[row], picks[row, 0], per_nat, scratch[part], found[row], bins[row])
            if picks[row, 1] >= 0:
                add_ladder(z[row], tops[row], factors, room, sums[picks[row, 1]])


@compiled_loop(parallel=True, fastmath=REORDERED)
def measure_counted_rows(codes: Any, values: Any, picks: Any, scales: Any, threads: int, out: Any) -> None:
    """Do what `measure_rows` does for logits of 16 bits.

    Args:
        codes: uint16 [N, V], their bits.
        values: float32 [2¹⁶], the number of each code, and the code of infinity.
        picks: as for `measure_rows`.
        scales: as for `measure_rows`.
        threads: how many there are.
        out: as for `measure_rows`.
    """
    found, bins, tops, sums = out
    numbers, infinite = values
    for part in numba.prange(threads):
        even, odd = np.zeros(CODES, np.int32), np.zeros(CODES, np.int32)
        number, times, weight = np.empty(MOST, np.float32), np.empty(MOST, np.float32), np.empty(MOST, np.float32)
        for row in range(part, len(codes), threads):
            room = (numbers, infinite, even, odd, number, times, weight)
            tops[row] = measure_counted_row(codes[row], picks[row], scales, room, (found[row], bins[row], sums))
