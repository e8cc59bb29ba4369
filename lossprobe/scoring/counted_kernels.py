"""Compiled CPU loops for logits of 16 bits: what is computed for each entry of a row is computed once for equal ones.

A row of 32,000 logits in bfloat16 holds about 2,000 different numbers. They are found by counting: the 16 bits of a
number, its code, say where its count is. Then the formulas are those of `kernels` and `ladder_kernels`, with each
number taken as often as it was counted. A NaN in the logits makes the row's loss NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop
from lossprobe.exponential import LEAST, LEAST_OF_TWO, exponential, power_of_two
from lossprobe.instructions import add_pair, bits_of_float32, float32_of_bits
from lossprobe.scoring.kernels import (
    LANES,
    MASKED,
    NOTHING,
    REORDERED,
    STEP,
    ZERO,
    bin_of,
    fill_found,
    join,
    line_of_bins,
    ordered,
)
from lossprobe.scoring.ladder_kernels import OCTAVES, SMALLEST, shift

CODES = 1 << 16
SIGN = 1 << 15
MOST = CODES + 1  # different numbers of a row, and one that `_take_group` writes behind them
GROUP = 128  # neighbouring codes that are taken together: the bfloat16 between one power of two and the next

_compiled = compiled_loop(fastmath=REORDERED)


@_compiled
def _least(codes: Any) -> Any:
    """Return the smallest magnitude of a row but 0: a code without its sign. Zero is far from all others."""
    least = np.uint16(SIGN)
    for i in range(codes.size):
        magnitude = np.uint16(codes[i] & np.uint16(SIGN - 1))
        magnitude = np.uint16(SIGN) if magnitude == np.uint16(0) else magnitude
        least = magnitude if magnitude < least else least
    return least


@_compiled
def _most(codes: Any) -> Any:
    """Return the largest magnitude of a row; a loop of its own, as LLVM makes vector instructions of this one only."""
    most = np.uint16(0)
    for i in range(codes.size):
        magnitude = np.uint16(codes[i] & np.uint16(SIGN - 1))
        most = magnitude if magnitude > most else most
    return most


@_compiled
def _count(codes: Any, even: Any, odd: Any) -> None:
    """Add 1 to the count of each code, in one of two tables in turn: neighbours are often equal, and would wait."""
    whole = codes.size - codes.size % 2
    for i in range(0, whole, 2):
        even[codes[i]] += np.int32(1)
        odd[codes[i + 1]] += np.int32(1)
    if whole < codes.size:
        even[codes[whole]] += np.int32(1)


@_compiled
def _take_group(even: Any, odd: Any, values: Any, number: Any, times: Any, used: int) -> int:
    """Append the numbers of a group of codes that were counted, and how often, and set the counts to 0.

    Returns:
        How many are filled in after that.
    """
    for i in range(GROUP):
        found = even[i] + odd[i]
        number[used], times[used] = values[i], np.float32(found)  # overwritten by the next if there was none
        used += 1 if found else 0
    for i in range(GROUP):
        even[i] = np.int32(0)
    for i in range(GROUP):
        odd[i] = np.int32(0)
    return used


@_compiled
def _take(even: Any, odd: Any, values: Any, magnitudes: Any, number: Any, times: Any) -> int:
    """Fill in the different numbers of a row, and how often each was counted, and return how many there are.

    Args:
        even: int32 [CODES], a table of `_count`; zeros on return.
        odd: the other one.
        values: float32 [CODES], the number of each code.
        magnitudes: the smallest and the largest.
        number: float32 [MOST].
        times: float32 [MOST].
    """
    low, high = magnitudes[0] // GROUP, magnitudes[1] // GROUP
    even[0] += even[SIGN] + odd[SIGN]  # minus zero, which equals zero
    even[SIGN] = odd[SIGN] = np.int32(0)
    used = 0
    for start in range(0, CODES, GROUP):
        group = (start & (SIGN - 1)) // GROUP
        if group == 0 or low <= group <= high:
            stop = start + GROUP
            used = _take_group(even[start:stop], odd[start:stop], values[start:stop], number, times, used)
    return used


@_compiled
def _largest(number: Any, other: Any) -> Any:
    """Return the largest number that is neither NaN nor another one, −inf for none."""
    largest = NOTHING
    for i in range(number.size):
        here = ordered(bits_of_float32(number[i])) if number[i] == number[i] and number[i] != other else NOTHING
        largest = here if here > largest else largest
    return float32_of_bits(ordered(largest))


@_compiled
def _compare(number: Any, times: Any, value: Any, top: Any) -> tuple[float, float, float, float]:
    """Return how many entries are larger than `value`, how many equal it, how many are −inf, how many equal `top`."""
    larger, equal, masked, same = 0.0, 0.0, 0.0, 0.0
    for i in range(number.size):
        often = np.float64(times[i])
        larger += often if number[i] > value else 0.0
        equal += often if number[i] == value else 0.0
        masked += often if number[i] == MASKED else 0.0
        same += often if number[i] == top else 0.0
    return larger, equal, masked, same


@_compiled
def _code_of(value: Any, values: Any, infinite: Any) -> Any:
    """Return the code of a number, that of +0 for zero."""
    magnitude = np.uint16(np.searchsorted(values[: np.int64(infinite) + 1], abs(value)))
    return np.uint16(magnitude | np.uint16(SIGN)) if value < ZERO else magnitude


@_compiled
def _first(codes: Any, code: Any, other: Any) -> int:
    """Return the index of the first entry that is one of two codes, or 0 if there is none."""
    for start in range(0, codes.size, STEP):
        block = codes[start : start + STEP]
        found = np.uint16(0)
        for i in range(block.size):
            found += np.uint16(1) if block[i] == code or block[i] == other else np.uint16(0)
        if found:
            for i in range(block.size):
                if block[i] == code or block[i] == other:
                    return start + i
    return 0


@_compiled
def _weigh(number: Any, times: Any, top: Any, weight: Any) -> tuple[float, float, float, float]:
    """Fill in the weights w = exp(s), s = z − top, and return Σ w, Σ w s, Σ w² and Σ s over all entries.

    The sums leave out one entry of the top, so that they keep their digits when the model is confident, and the last
    one those of −inf.
    """
    total, shifted, squares, plain = 0.0, 0.0, 0.0, 0.0
    for i in range(number.size):
        s = number[i] - top
        w = exponential(s)
        weight[i] = w
        often = np.float64(times[i]) - (1.0 if number[i] == top else 0.0)
        part = often * np.float64(w)
        total += part
        shifted += part * np.float64(LEAST if s < LEAST else s)  # 0 times infinity would be NaN
        squares += part * np.float64(w)
        plain += 0.0 if number[i] == MASKED else often * np.float64(s)
    return total, shifted, squares, plain


@_compiled
def _fill_bins(number: Any, times: Any, weight: Any, line: Any, bins: Any) -> float:
    """Add to the bin of each number how often it was counted, to bins[0], and its weight as often, to bins[1].

    Returns:
        Σ w (s − mean)² over all entries, with s = z − top.
    """
    count, spread = bins.shape[1], 0.0
    place, pairs = np.empty(number.size, np.int32), np.empty((number.size, 2))
    lanes = np.zeros((LANES, 2 * count))
    for i in range(number.size):
        s = number[i] - line[0]
        from_mean = np.float64((LEAST if s < LEAST else s) - line[1])  # 0 times infinity would be NaN
        part = np.float64(times[i]) * np.float64(weight[i])
        spread += part * from_mean * from_mean
        pairs[i, 0], pairs[i, 1] = np.float64(times[i]), part
        place[i] = bin_of(s, line, count) + np.int32(i & (LANES - 1)) * np.int32(count)
    for i in range(number.size):
        add_pair(lanes, pairs, place[i], i)
    join(lanes, bins)
    return spread


@_compiled
def _power_sums(shifted: Any, times: Any, factor: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return Σ 2^(s · 2ʲ · factor) over the entries of a group, j from 0 to 4; `ladder_kernels` has the limits.

    The squares are written out as there: LLVM rounds them otherwise where both loops get them from one function.
    """
    sum1, sum2, sum4, sum8, sum16 = ZERO, ZERO, ZERO, ZERO, ZERO
    for i in range(shifted.size):
        x = power_of_two(shifted[i], factor)
        sum1 += times[i] * x
        x = SMALLEST if x < SMALLEST else x
        x *= x
        sum2 += times[i] * x
        x *= x
        sum4 += times[i] * x
        x = SMALLEST if x < SMALLEST else x
        x *= x
        sum8 += times[i] * x
        x *= x
        sum16 += times[i] * x
    return sum1, sum2, sum4, sum8, sum16


@_compiled
def _add_ladder(number: Any, times: Any, top: Any, factors: Any, sums: Any) -> None:
    """Do what `ladder_kernels.add_ladder` does."""
    shifted, least = np.empty(GROUP, np.float32), LEAST_OF_TWO / factors.max()
    for start in range(0, number.size, GROUP):
        size = min(GROUP, number.size - start)
        shift(number[start : start + size], top, least, shifted)
        for at in range(len(factors)):
            found = _power_sums(shifted[:size], times[start : start + size], factors[at])
            for step in range(OCTAVES):
                sums[at, step] += found[step]


@_compiled
def measure_counted_row(codes: Any, pick: Any, scales: Any, room: Any, out: Any) -> Any:
    """Fill in one row of `row_loops.measure_counted_rows`, and return its largest logit.

    Args:
        codes: uint16 [V].
        pick: the target's index, and that of the row's ladder, −1 for none.
        scales: as for `row_loops.measure_rows`.
        room: values float32 [CODES], the number of each code; infinite, the code of infinity; even and odd int32
            [CODES], zeros, which they are again on return; number, times and weight float32 [MOST], overwritten.
        out: found float64 [12] and bins [3, B] of the row, and sums [S, F, 5] of all ladders.
    """
    values, infinite, even, odd, number, times, weight = room
    found, bins, sums = out
    _count(codes, even, odd)
    used = _take(even, odd, values, (_least(codes), _most(codes)), number, times)
    number, times, weight = number[:used], times[:used], weight[:used]
    target, top = values[codes[pick[0]]], _largest(number, np.float32(np.nan))
    larger, equal, masked, same = _compare(number, times, target, top)
    code = _code_of(top, values, infinite)
    top_id = _first(codes, code, np.uint16(SIGN) if top == ZERO else code)
    weights = _weigh(number, times, top, weight)
    line = line_of_bins(top, weights, scales[0], bins.shape[1])
    spread = _fill_bins(number, times, weight, line, bins)
    bins[1] *= 1.0 / (1.0 + weights[0])
    bins[2, bin_of(target - top, line, bins.shape[1])] = 1.0
    second = top if same > 1.0 else _largest(number, top)
    counts = (larger, equal, top_id, masked, codes.size, top_id == pick[0])
    fill_found((top, target, second), weights, spread, counts, found)
    if pick[1] >= 0:
        _add_ladder(number, times, top, scales[1], sums[pick[1]])
    return top
