"""Compiled CPU loops that compute the statistics and the histogram of a logit row, with the formulas of `statistics`.

They are faster than torch because they work on blocks that stay in the fast cache: each operation of torch goes over
the whole row. Compiling takes some seconds once; the code is cached on disk, see `compiler`. Exponentials are float32,
their sums float64. A NaN in the logits makes the row's loss NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lossprobe.compiler import kept, numba
from lossprobe.exponential import FUSED, exponential, power_of_two
from lossprobe.instructions import add_pair

BLOCK = 512  # entries worked on together, which fit into the L1 cache
LANES = 4  # copies of each bin: neighbouring entries often share a bin, and adding twice to one place has to wait
MAXIMA = 64  # running maxima of `_largest`: independent of each other, so that vector instructions update them together
# Powers are not made smaller than the square of this, 2⁻¹²⁶: numbers below are no normal float32, and slow to compute.
SMALLEST = np.float32(2.0**-63)
OCTAVES = 5  # temperatures T, T/2, … T/16 whose sums `ladder_sums` makes from one set of exponentials

# LLVM's fast-math flags that, beside fused multiply-add, let sums change their order, so that they can be vectorised.
# The flags that assume that no NaN or infinity occurs stay off.
REORDERED = {"contract", "nsz", "reassoc", "arcp"}


def _compiled(*, parallel: bool = False, fastmath: set[str] = REORDERED) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function with numba, with its code cached on disk where that is safe."""

    def decorate(function: Callable[..., Any]) -> Any:
        compile_ = numba.njit(nogil=True, parallel=parallel, fastmath=fastmath, error_model="numpy")
        return kept(compile_(function))

    return decorate


@_compiled(fastmath=FUSED)
def _exponentials(z: Any, top: Any, factor: Any, out: Any) -> None:
    """Fill `out` with exp((z − top) · factor) of entries z ≤ top; `factor` > 0. Relative error 8e-8."""
    for i in range(z.size):
        out[i] = exponential((z[i] - top) * factor)


@_compiled()
def _largest(z: Any) -> Any:
    """Return the largest entry, −inf for none; NaN entries are skipped."""
    whole = z.size - z.size % MAXIMA
    maxima = np.full(MAXIMA, -np.inf, np.float32)
    for start in range(0, whole, MAXIMA):
        block = z[start : start + MAXIMA]
        for i in range(MAXIMA):
            maxima[i] = block[i] if block[i] > maxima[i] else maxima[i]
    largest = np.float32(-np.inf)
    for i in range(MAXIMA):
        largest = maxima[i] if maxima[i] > largest else largest
    for i in range(whole, z.size):
        largest = z[i] if z[i] > largest else largest
    return largest


@_compiled()
def _first(z: Any, value: Any) -> int:
    """Return the index of the first entry equal to `value`, or 0 if there is none."""
    for start in range(0, z.size, MAXIMA):
        block = z[start : start + MAXIMA]
        found = np.int32(0)
        for i in range(block.size):
            found += np.int32(block[i] == value)
        if found:
            for i in range(block.size):
                if block[i] == value:
                    return start + i
    return 0


@_compiled()
def _compare(z: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return how many entries are larger than `value`, how many equal it, and how many are −inf."""
    larger, equal, masked = np.int32(0), np.int32(0), np.int32(0)
    for i in range(z.size):
        larger += np.int32(z[i] > value)
        equal += np.int32(z[i] == value)
        masked += np.int32(z[i] == -np.inf)
    return larger, equal, masked


@_compiled()
def _sums(z: Any, weight: Any, top: Any) -> tuple[float, float, float, float]:
    """Return Σ w, Σ w s, Σ w² and Σ s over the entries that are not −inf, with w the weight and s = z − top."""
    total, shifted, squares, plain = 0.0, 0.0, 0.0, 0.0
    for i in range(z.size):
        w = np.float64(weight[i])
        s = 0.0 if z[i] == -np.inf else np.float64(z[i]) - top
        total += w
        shifted += w * s
        squares += w * w
        plain += s
    return total, shifted, squares, plain


@_compiled()
def _spread(z: Any, weight: Any, top: Any, mean: Any) -> float:
    """Return Σ w (s − mean)², with w the weight and s = z − top."""
    spread = 0.0
    for i in range(z.size):
        s = 0.0 if z[i] == -np.inf else np.float64(z[i]) - top
        spread += np.float64(weight[i]) * (s - mean) * (s - mean)
    return spread


@_compiled()
def _place(z: Any, log_z: Any, per_nat: Any, count: Any) -> Any:
    """Return the bin of an entry: count + per_nat · log p, clipped to 0 … count − 1."""
    x = count + per_nat * (np.float64(z) - log_z)
    x = x if x > 0.0 else 0.0  # also puts NaN into bin 0
    return np.int32(x if x < count - 1.0 else count - 1.0)


@_compiled()
def _fill_bins(z: Any, weight: Any, log_z: Any, per_nat: Any, bins: Any) -> None:
    """Add each entry to its bin: 1 to bins[0], its weight to bins[1]."""
    place = np.empty(BLOCK, np.int32)
    count = bins.shape[1]
    lanes = np.zeros((LANES * count, 2))
    for start in range(0, z.size, BLOCK):
        block, weights = z[start : start + BLOCK], weight[start : start + BLOCK]
        for i in range(block.size):
            place[i] = _place(block[i], log_z, per_nat, count)
        for i in range(block.size):
            add_pair(lanes, (i & (LANES - 1)) * count + place[i], 1.0, weights[i])
    for lane in range(LANES):
        for bin_ in range(count):
            bins[0, bin_] += lanes[lane * count + bin_, 0]
            bins[1, bin_] += lanes[lane * count + bin_, 1]


@_compiled()
def _measure_row(z: Any, target: Any, per_nat: Any, weight: Any, found: Any, bins: Any) -> None:
    """Fill in one row of `measure_rows`, with the formulas of `statistics`."""
    top32 = _largest(z)
    top, top_id = np.float64(top32), _first(z, top32)
    rank, ties, masked = _compare(z, z[target])
    for start in range(0, z.size, BLOCK):
        _exponentials(z[start : start + BLOCK], top32, np.float32(1.0), weight[start : start + BLOCK])
    weight[top_id] = np.float32(0.0)  # the sum without the top entry keeps its digits when the model is confident
    others, shifted, squares, plain = _sums(z, weight, top)
    weight[top_id] = np.float32(1.0)
    log_sum = math.log1p(others)
    log_z, scale = top + log_sum, 1.0 / (1.0 + others)
    mean = shifted * scale
    below = np.float64(z[target]) - top
    found[0] = log_sum - below  # loss_nats
    found[1] = rank
    found[2] = ties
    found[3] = log_sum - mean  # entropy_nats
    found[4] = _spread(z, weight, top, mean) * scale  # varentropy
    found[5] = top_id
    found[6] = scale  # top_prob
    second = max(_largest(z[:top_id]), _largest(z[top_id + 1 :])) if target == top_id else top
    found[7] = top - second if target == top_id else below  # margin_nats
    found[8] = log_z
    found[9] = log_sum - plain / (z.size - masked)  # uniform_loss_nats
    found[10] = (squares + 1.0) * scale * scale  # sum_p2
    found[11] = masked
    _fill_bins(z, weight, log_z, per_nat, bins)
    bins[1] *= scale
    bins[2, _place(z[target], log_z, per_nat, bins.shape[1])] = 1.0


@_compiled(parallel=True)
def measure_rows(z: Any, targets: Any, per_nat: float, scratch: Any, found: Any, bins: Any) -> None:
    """Compute the statistics of every row, and the histogram of its probabilities.

    Args:
        z: float32 [N, V], logits.
        targets: int64 [N], each below V.
        per_nat: number of bins in one nat of log p.
        scratch: float32 [threads, V], overwritten.
        found: float64 [N, 12], filled with the fields of `RowStatistics` in their order.
        bins: float64 [N, 3, B], zeros; filled with the number of entries, their sum of p and the number of targets.
    """
    for part in numba.prange(len(scratch)):
        for row in range(part, len(z), len(scratch)):
            _measure_row(z[row], targets[row], per_nat, scratch[part], found[row], bins[row])


@_compiled(fastmath=FUSED)
def _powers_of_two(z: Any, top: Any, factor: Any, out: Any) -> None:
    """Fill `out` with 2^((z − top) · factor) of entries z ≤ top; `factor` > 0."""
    for i in range(z.size):
        out[i] = power_of_two((z[i] - top) * factor)


@_compiled()
def _power_sums(power: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return Σ x, Σ x², Σ x⁴, Σ x⁸ and Σ x¹⁶ over the entries x of a block, each power at least 2⁻¹²⁶."""
    sum1 = sum2 = sum4 = sum8 = sum16 = np.float32(0.0)
    for i in range(power.size):
        x = power[i]
        sum1 += x
        x = x if x > SMALLEST else SMALLEST
        x *= x
        sum2 += x
        x = x if x > SMALLEST else SMALLEST
        x *= x
        sum4 += x
        x = x if x > SMALLEST else SMALLEST
        x *= x
        sum8 += x
        x = x if x > SMALLEST else SMALLEST
        x *= x
        sum16 += x
    return sum1, sum2, sum4, sum8, sum16


@_compiled(parallel=True)
def ladder_sums(z: Any, tops: Any, factors: Any, sums: Any) -> None:
    """Add Σ 2^((z − top) · 2ʲ · factor) over each row z to `sums`, for j from 0 to 4.

    Entries so far below the top that a power is less than 2⁻¹²⁶ count as that. No sum shows it: the top adds 1 to each.

    Args:
        z: float32 [N, V], logits.
        tops: float32 [N], the largest of each row.
        factors: float32 [F], inverse temperatures, times log₂ e.
        sums: float64 [N, F, 5], zeros; filled.
    """
    for row in numba.prange(len(z)):
        power = np.empty(BLOCK, np.float32)
        for start in range(0, z.shape[1], BLOCK):
            block = z[row, start : start + BLOCK]
            for at in range(len(factors)):
                _powers_of_two(block, tops[row], factors[at], power)
                found = _power_sums(power[: block.size])
                for step in range(OCTAVES):
                    sums[row, at, step] += found[step]
