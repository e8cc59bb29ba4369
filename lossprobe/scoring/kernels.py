"""Compiled CPU loops that compute the statistics and the histogram of a logit row, with the formulas of `statistics`.

They are faster than torch because they work on blocks that stay in the fast cache: each operation of torch goes over
the whole row. Compiling takes some seconds once; the code is cached on disk, see `compiler`. Exponentials are float32,
and so are sums over a block; sums of blocks are float64. A NaN in the logits makes the row's loss NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop
from lossprobe.exponential import LEAST, exponential
from lossprobe.instructions import PAIRS, WIDE, add_pair, bits_of_float32, float32_of_bits, product_sum, put_pairs

BLOCK = 512 if WIDE else 256  # entries whose sums are float32: at most 32 in each lane of a vector
VISITED = 2048  # entries whose largest is found together
# Entries that are put into bins together: so few that the processor begins with the next while it adds these. With 512
# it took 1.3 times as long.
CHUNK = 128
LANES = 8  # copies of each bin: neighbouring entries often share a bin, and adding twice to one place has to wait
STEP = 64  # entries among which the first of a value is looked for together
ZERO, ONE, MASKED = np.float32(0.0), np.float32(1.0), np.float32(-np.inf)
NOTHING = np.int32(-0x7F800001)  # the int32 that `ordered` makes of `MASKED`
SMALL = np.float32(2.0**-16)  # factor of sums: those of the lowest logits are no float32
# Numbers below are not squared: squares below 2^(-126) are no normal float32, and slow to compute.
SMALLEST_SQUARED = np.float32(2.0**-62)

# LLVM's fast-math flags that, beside fused multiply-add, let sums change their order, so that they can be vectorised.
# The flags that assume that no NaN or infinity occurs stay off.
REORDERED = {"contract", "nsz", "reassoc", "arcp"}


_compiled = compiled_loop(fastmath=REORDERED)


@_compiled
def ordered(bits: Any) -> Any:
    """Return int32 that have the order of the float32 of some bits; applied twice, the bits."""
    return np.int32(bits ^ (np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_compiled
def _compare(z: Any, value: Any) -> tuple[Any, Any, Any, Any]:
    """Return the largest entry of a block, and how many are larger than `value`, how many equal it, how many are −inf.

    NaN entries are skipped; the largest of none is −inf. The largest is found by int32 of the same order and numbers
    are counted in float32, since LLVM makes vector instructions of these loops.
    """
    largest, larger, equal, masked = NOTHING, ZERO, ZERO, ZERO
    for i in range(z.size):
        number = ordered(bits_of_float32(z[i])) if z[i] == z[i] else NOTHING
        largest = number if number > largest else largest
        larger += ONE if z[i] > value else ZERO
        equal += ONE if z[i] == value else ZERO
        masked += ONE if z[i] == MASKED else ZERO
    return float32_of_bits(ordered(largest)), larger, equal, masked


@_compiled
def _first(z: Any, value: Any) -> int:
    """Return the index of the first entry equal to `value`, or 0 if there is none."""
    for start in range(0, z.size, STEP):
        block = z[start : start + STEP]
        found = ZERO
        for i in range(block.size):
            found += ONE if block[i] == value else ZERO
        if found:
            for i in range(block.size):
                if block[i] == value:
                    return start + i
    return 0


@_compiled
def _visit(z: Any, value: Any) -> tuple[Any, int, Any, int, int, int]:
    """Return the largest entry of a row, its index, the largest other entry, and the counts of `_compare`."""
    top, second, begin = MASKED, MASKED, 0
    larger, equal, masked = 0, 0, 0
    for start in range(0, z.size, VISITED):
        largest, more, same, absent = _compare(z[start : start + VISITED], value)
        larger, equal, masked = larger + int(more), equal + int(same), masked + int(absent)
        if largest > top:
            top, second, begin = largest, top, start
        elif largest > second:
            second = largest
    top_id = begin + _first(z[begin:], top)
    for part in (z[begin:top_id], z[top_id + 1 : begin + VISITED]):
        largest = _compare(part, top)[0]
        second = largest if largest > second else second
    return top, top_id, second, larger, equal, masked


@_compiled
def _weigh(z: Any, top: Any, weight: Any) -> tuple[Any, Any, Any, Any]:
    """Fill in the weights w = exp(s), s = z − top, of a block, and return Σ w, Σ w s, Σ w² and `SMALL` · Σ s.

    The last sum leaves out entries of −inf. The sums are float32, off by at most 1e-6 of themselves, and by 1e-7
    unless most of their addends are alike.
    """
    total, shifted, squares, plain = ZERO, ZERO, ZERO, ZERO
    for i in range(z.size):
        s = z[i] - top
        w = exponential(s)
        weight[i] = w
        total += w
        shifted += w * (LEAST if s < LEAST else s)  # 0 times infinity would be NaN
        large = SMALLEST_SQUARED if w < SMALLEST_SQUARED else w
        squares += large * large
        plain += SMALL * (ZERO if z[i] == MASKED else s)
    return total, shifted, squares, plain


@_compiled
def _weigh_row(z: Any, top: Any, top_id: int, weight: Any) -> tuple[float, float, float, float]:
    """Fill in the weights of a row, and return the sums of `_weigh` without the top entry.

    Without it they keep their digits when the model is confident.
    """
    own = np.float64(z[top_id] - top)  # 0, or NaN if the top is no finite number
    total, shifted, squares, plain = 0.0, own, 0.0, own
    for start in range(0, z.size, BLOCK):
        stop = min(start + BLOCK, z.size)
        middle = top_id if start <= top_id < stop else stop
        for begin, end in ((start, middle), (middle + 1, stop)):
            if begin < end:
                sums = _weigh(z[begin:end], top, weight[begin:end])
                total += sums[0]
                shifted += sums[1]
                squares += sums[2]
                plain += sums[3]
    weight[top_id] = ONE
    return total, shifted, squares, plain / SMALL


@_compiled
def bin_of(s: Any, line: Any, bins: int) -> Any:
    """Return the bin of an entry s = z − top: first + per_nat · s, clipped to 0 … number of bins − 1.

    It is computed in float32, rounded by 2e-5 of a bin; `line` is that of `_fill_chunk`.
    """
    x, last = product_sum(line[3], s, line[2]), np.float32(bins - 1)
    x = x if x > ZERO else ZERO  # also puts NaN into bin 0
    return np.int32(x if x < last else last)


@_compiled
def _fill_chunk(z: Any, weight: Any, line: Any, room: Any, used: int) -> None:
    """Add up to `CHUNK` entries to their bins in each lane, and their w (s − mean)² to `spread`, with s = z − top.

    Args:
        z: `CHUNK` entries.
        weight: their weights w, 0 for those that are not used.
        line: top, mean, first and per_nat, float32.
        room: lanes float64 [LANES, 2 · bins], number and weight of the entries; place int32 [CHUNK], overwritten by
            their places in `lanes`; pairs float64 [CHUNK, 2], overwritten; spread float32 [CHUNK].
        used: number of entries that are used.
    """
    lanes, place, pairs, spread = room
    bins = lanes.shape[1] // 2
    for i in range(CHUNK):
        s = z[i] - line[0]
        from_mean = (LEAST if s < LEAST else s) - line[1]  # 0 times infinity would be NaN
        spread[i] += weight[i] * from_mean * from_mean
        place[i] = bin_of(s, line, bins) + np.int32(i & (LANES - 1)) * np.int32(bins)
    for i in range(0, CHUNK, PAIRS):
        put_pairs(pairs, weight, i)
    for i in range(used):
        add_pair(lanes, pairs, place[i], i)


@_compiled
def _emptied(numbers: Any) -> Any:
    """Return the sum of float32 numbers, and set them to 0."""
    total = ZERO
    for i in range(numbers.size):
        total += numbers[i]
        numbers[i] = ZERO
    return total


@_compiled
def join(lanes: Any, bins: Any) -> None:
    """Fill in bins[0] and bins[1], the sums of what the lanes hold."""
    total = lanes[0]
    for lane in range(1, LANES):
        other = lanes[lane]
        for i in range(total.size):
            total[i] += other[i]
    for bin_ in range(bins.shape[1]):
        bins[0, bin_] = total[2 * bin_]
        bins[1, bin_] = total[2 * bin_ + 1]


@_compiled
def _fill_bins(z: Any, weight: Any, line: tuple[Any, Any, Any, Any], target: int, bins: Any) -> Any:
    """Add each entry to its bin: 1 to bins[0], its weight to bins[1], and 1 to bins[2] for the target.

    Returns:
        Σ w (s − mean)², with s = z − top.
    """
    count, total = bins.shape[1], 0.0
    lanes, place, pairs = np.zeros((LANES, 2 * count)), np.empty(CHUNK, np.int32), np.empty((CHUNK, 2))
    spread = np.zeros(CHUNK, np.float32)
    room = (lanes, place, pairs, spread)
    whole = z.size - z.size % CHUNK
    for start in range(0, whole, CHUNK):
        _fill_chunk(z[start : start + CHUNK], weight[start : start + CHUNK], line, room, CHUNK)
        if start <= target < start + CHUNK:
            bins[2, place[target - start] % count] = 1.0
        if start % BLOCK == BLOCK - CHUNK:
            total += _emptied(spread)
    if whole < z.size:
        last, last_weights = np.full(CHUNK, MASKED), np.zeros(CHUNK, np.float32)  # weight 0 for the others
        for i in range(z.size - whole):
            last[i], last_weights[i] = z[whole + i], weight[whole + i]
        _fill_chunk(last, last_weights, line, room, z.size - whole)
        if target >= whole:
            bins[2, place[target - whole] % count] = 1.0
    join(lanes, bins)
    return total + _emptied(spread)


@_compiled
def line_of_bins(top: Any, sums: Any, per_nat: Any, bins: int) -> tuple[Any, Any, Any, Any]:
    """Return `line` of `_fill_chunk`, by the largest logit and the sums of `_weigh_row`."""
    mean, log_sum = sums[1] * (1.0 / (1.0 + sums[0])), math.log1p(sums[0])
    return top, np.float32(mean), np.float32(bins - per_nat * log_sum), np.float32(per_nat)


@_compiled
def fill_found(logits: Any, sums: Any, spread: Any, counts: Any, found: Any) -> None:
    """Fill in the statistics of a row, with the formulas of `statistics`.

    Args:
        logits: float32, the largest, the target's, and the largest other than the largest.
        sums: of `_weigh_row`.
        spread: Σ w (s − mean)², with the mean rounded to float32.
        counts: rank, ties, index of the largest, number of −inf, number of entries, and whether the target is largest.
        found: float64 [12], overwritten.
    """
    top, target, second = np.float64(logits[0]), np.float64(logits[1]), np.float64(logits[2])
    others, shifted, squares, plain = sums
    rank, ties, top_id, masked, size, is_top = counts
    log_sum = math.log1p(others)
    log_z, scale = top + log_sum, 1.0 / (1.0 + others)
    mean = shifted * scale
    below = target - top
    found[0] = log_sum - below  # loss_nats
    found[1] = rank
    found[2] = ties
    found[3] = log_sum - mean  # entropy_nats
    variance = spread * scale - (mean - np.float32(mean)) ** 2
    found[4] = 0.0 if variance < 0.0 else variance  # varentropy
    found[5] = top_id
    found[6] = scale  # top_prob
    found[7] = top - second if is_top else below  # margin_nats
    found[8] = log_z
    found[9] = log_sum - plain / (size - masked)  # uniform_loss_nats
    found[10] = (squares + 1.0) * scale * scale  # sum_p2
    found[11] = masked


@_compiled
def measure_row(z: Any, target: Any, per_nat: Any, weight: Any, found: Any, bins: Any) -> Any:
    """Fill in one row of `row_loops.measure_rows`, and return the largest logit."""
    top, top_id, second, rank, ties, masked = _visit(z, z[target])
    sums = _weigh_row(z, top, top_id, weight)
    spread = _fill_bins(z, weight, line_of_bins(top, sums, per_nat, bins.shape[1]), target, bins)
    bins[1] *= 1.0 / (1.0 + sums[0])
    counts = (rank, ties, top_id, masked, z.size, target == top_id)
    fill_found((top, z[target], second), sums, spread, counts, found)
    return top
