"""Triton kernels that compute the statistics, the histogram and the ladder of logit rows on a GPU, a program a row.

A program reads its row twice, in tiles. The first visit finds the largest entry, and the sums that are relative to it:
every lane of a tile keeps the largest entry that it has seen and scales its sums when a larger one comes, so that no
lane waits for another (the online softmax of Milakov and Gimelshein 2018, for each lane). The second visit knows the
largest entry and the mean of log p; it sums what depends on them, and fills the histogram.

Formulas and exponentials are those of `statistics` and `kernels`. Sums of a lane are float32, as each has only V / TILE
terms; sums over the lanes are float64. Bins are filled with whole numbers, whose sum does not depend on the order.

Importing this module imports Triton; `fused` calls it. With TRITON_INTERPRET=1 it runs on a CPU, for the tests.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from lossprobe.scoring.histogram import MASS_BITS, PACKED_SHIFT

# Numbers that kernels use have to be of this type.
LOG2E = tl.constexpr(1.0 / math.log(2.0))
LN2_HIGH = tl.constexpr(355.0 / 512.0)  # ln 2 in two parts, see `kernels`
LN2_LOW = tl.constexpr(math.log(2.0) - 355.0 / 512.0)
T2, T3, T4, T5, T6, T7 = (tl.constexpr(1.0 / math.factorial(power)) for power in range(2, 8))
ROUNDER = tl.constexpr(1.5 * 2.0**23)  # float32 numbers of this size have no digits after the point
ONE = tl.constexpr(127 << 23)  # the bits of 1.0
LEAST = tl.constexpr(-87.0)  # e^s of a smaller s is not a normal float32 and counts as 0
LOWEST = tl.constexpr(-3.4028234663852886e38)  # the smallest finite float32
# Sums of s = z - max z are made of s · 2^-20: the lowest finite logits, with which some models mask, overflow none.
SMALL, LARGE = tl.constexpr(2.0**-20), tl.constexpr(2.0**20)
EQUAL, MASKED, COUNT_MASK = tl.constexpr(10), tl.constexpr(20), tl.constexpr(1023)  # places of three counts in an int32
FRACTION, ENTRY = tl.constexpr(MASS_BITS), tl.constexpr(1 << PACKED_SHIFT)


@triton.jit
def exponential(s: tl.tensor) -> tl.tensor:
    """Return e^s of float32 s ≤ 0 with a relative error of 8e-8, 0 below `LEAST`, NaN of NaN; see `kernels`."""
    r = tl.where(s < LEAST, LEAST, s)
    rounded = r * LOG2E + ROUNDER  # its last bits are the whole number nearest to s / ln 2
    n = rounded - ROUNDER
    r = r - n * LN2_HIGH
    r = r - n * LN2_LOW
    value = (((((r * T7 + T6) * r + T5) * r + T4) * r + T3) * r + T2) * r * r + r + 1.0
    power = ((rounded.to(tl.int32, bitcast=True) << 23) + ONE).to(tl.float32, bitcast=True)
    return tl.where(s < LEAST, 0.0, value * power)


@triton.jit
def place_of(s: tl.tensor, first: tl.tensor, BINS: tl.constexpr, PER_NAT: tl.constexpr) -> tl.tensor:
    """Return the bin of an entry with s = z − max z: first + PER_NAT · s, clipped to 0 … BINS − 1; NaN is in bin 0."""
    x = first + s * PER_NAT
    x = tl.where(x > 0.0, x, 0.0)
    return tl.where(x < BINS - 1.0, x, BINS - 1.0).to(tl.int32)


@triton.jit
def first_visit(start: tl.tensor, target: tl.tensor, vocab: tl.tensor, TILE: tl.constexpr) -> tl.tensor:
    """Return what the entries of the row that starts at `start` say of each other.

    Returns:
        The largest entry, the place of the first such entry, and the largest of all others; int32 [TILE], how many
        entries of each lane are larger than `target`, equal to it, and −inf; Σ w of all entries but the top, and Σ w s.
    """
    # Of each lane: the largest entry so far, the next one, the place of the first of the largest; Σ w and Σ w s over
    # all entries but it, with s relative to it.
    lane = tl.arange(0, TILE)
    own = tl.full((TILE,), LOWEST, tl.float32)
    second = tl.full((TILE,), float("-inf"), tl.float32)
    index = lane
    found = tl.zeros((TILE,), tl.int32)
    others = tl.zeros((TILE,), tl.float32)
    shifted = tl.zeros((TILE,), tl.float32)
    for begin in range(0, vocab, TILE):
        z = tl.load(start + begin + lane, mask=begin + lane < vocab, other=float("-inf")).to(tl.float32)
        gone = z == float("-inf")
        found += (z > target).to(tl.int32) + ((z == target).to(tl.int32) << EQUAL) + (gone.to(tl.int32) << MASKED)
        larger = z > own
        apart = z - own
        e = exponential(tl.where(larger, -apart, apart))
        moved = tl.where(gone, 0.0, apart * e)  # 0 · (-inf) is NaN
        shifted = tl.where(larger, shifted * e - moved * (others + 1.0), shifted + moved)
        others = tl.where(larger, (others + 1.0) * e, others + e)
        second = tl.maximum(second, tl.minimum(own, z))
        index = tl.where(larger, begin + lane, index)
        own = tl.where(larger, z, own)
    top = tl.max(own, axis=0)
    top_id = tl.min(tl.where(own == top, index, 2147483647), axis=0)
    here = index == top_id
    e = exponential(own - top)
    with_own = others + tl.where(here, 0.0, 1.0)
    rest = tl.sum((with_own * e).to(tl.float64), axis=0)
    mean_sum = tl.sum((shifted * e + (own - top) * e * with_own).to(tl.float64), axis=0)
    return top, top_id, tl.max(tl.where(here, second, own), axis=0), found, rest, mean_sum


@triton.jit
def second_visit(  # noqa: PLR0913 - a kernel takes its tensors one by one
    start: tl.tensor,
    vocab: tl.tensor,
    top: tl.tensor,
    pivot: tl.tensor,
    first: tl.tensor,
    scale: tl.tensor,
    exponents: tl.tensor,
    packed: tl.tensor,
    BINS: tl.constexpr,
    PER_NAT: tl.constexpr,
    WIDTH: tl.constexpr,
    COPIES: tl.constexpr,
    TILE: tl.constexpr,
) -> tl.tensor:
    """Fill the histogram of a row; return Σ w (s − pivot)², Σ w² and Σ s · 2⁻²⁰ of each lane, with s = z − top."""
    lane = tl.arange(0, TILE)
    spread = tl.zeros((TILE,), tl.float32)
    squares = tl.zeros((TILE,), tl.float32)
    plain = tl.zeros((TILE,), tl.float32)
    bins = packed + (lane % COPIES) * WIDTH
    for begin in range(0, vocab, TILE):
        inside = begin + lane < vocab
        z = tl.load(start + begin + lane, mask=inside, other=float("-inf")).to(tl.float32)
        s = z - top
        w = exponential(s)
        from_mean = tl.where(w == 0.0, 0.0, s - pivot)
        spread += w * from_mean * from_mean
        squares += w * w
        plain += tl.where(z == float("-inf"), 0.0, s * SMALL)
        place = place_of(s, first, BINS, PER_NAT)
        unit = ((-tl.load(exponents + place) + (FRACTION + 127)) << 23).to(tl.float32, bitcast=True)
        amount = (w * scale * unit + 0.5).to(tl.int32).to(tl.int64)
        tl.atomic_add(bins + place, amount + ENTRY, mask=inside, sem="relaxed")
    return spread, squares, plain


@triton.jit
def measure_rows(  # noqa: PLR0913 - a kernel takes its tensors one by one
    logits: tl.tensor, stride: tl.tensor, targets: tl.tensor, exponents: tl.tensor,
    floats: tl.tensor, counts: tl.tensor, packed: tl.tensor, vocab: tl.tensor,
    BINS: tl.constexpr, PER_NAT: tl.constexpr, WIDTH: tl.constexpr, COPIES: tl.constexpr, TILE: tl.constexpr,
) -> None:  # fmt: skip
    """Measure one row of logits.

    Args:
        logits: [N, V], float32, bfloat16 or float16; entries of a row lie side by side, rows `stride` apart.
        stride: see `logits`.
        targets: int64 [N].
        exponents: int32 [BINS], see `HistogramBins.exponents`.
        floats: float64 [N, 8], filled: top, target logit, second, others, Σ w s, Σ w (s − c)², Σ w², Σ s, with c the
            mean Σ w s / Σ w as float32.
        counts: int32 [N, 5], filled: rank, ties, top id, masked, the target's bin.
        packed: int64 [N, COPIES, WIDTH], zeros; each entry adds `ENTRY` and its p, in units of 2^(exponent − FRACTION).
        vocab: V, below 2^10 · TILE.
        BINS: number of bins.
        PER_NAT: bins in a nat of log p.
        WIDTH: their places in memory.
        COPIES: copies of each bin, a power of 2: entries that lie side by side are added in different places.
        TILE: entries that are worked on together.
    """
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    target_id = tl.load(targets + row)
    entry = (target_id >= 0) & (target_id < vocab)  # a target that is no entry of the row has a loss of NaN
    target = tl.load(start + target_id, mask=entry, other=float("nan")).to(tl.float32)
    top, top_id, largest, found, rest, mean_sum = first_visit(start, target, vocab, TILE)
    scale = 1.0 / (1.0 + rest)
    pivot = (mean_sum * scale).to(tl.float32)
    first = (BINS - tl.log(1.0 + rest) * PER_NAT).to(tl.float32)
    bins = packed + row * COPIES * WIDTH
    spread, squares, plain = second_visit(
        start, vocab, top, pivot, first, scale.to(tl.float32), exponents, bins, BINS, PER_NAT, WIDTH, COPIES, TILE
    )

    at = floats + row * 8
    tl.store(at, top.to(tl.float64))
    tl.store(at + 1, target.to(tl.float64))
    masked = tl.sum(found >> MASKED, axis=0) - (tl.cdiv(vocab, TILE) * TILE - vocab)
    largest = tl.where(vocab - masked < 2, float("-inf"), largest)  # it is `LOWEST` where a lane saw nothing
    tl.store(at + 2, largest.to(tl.float64))
    tl.store(at + 3, rest)
    tl.store(at + 4, mean_sum)
    tl.store(at + 5, tl.sum(spread.to(tl.float64), axis=0))
    tl.store(at + 6, tl.sum(squares.to(tl.float64), axis=0))
    tl.store(at + 7, tl.sum(plain.to(tl.float64), axis=0) * LARGE)
    at = counts + row * 5
    tl.store(at, tl.sum(found & COUNT_MASK, axis=0))
    tl.store(at + 1, tl.sum((found >> EQUAL) & COUNT_MASK, axis=0))
    tl.store(at + 2, top_id)
    tl.store(at + 3, masked)
    tl.store(at + 4, place_of(target - top, first, BINS, PER_NAT))


@triton.jit
def ladder_sums(  # noqa: PLR0913 - a kernel takes its tensors one by one
    logits: tl.tensor,
    stride: tl.tensor,
    factors: tl.tensor,
    sums: tl.tensor,
    vocab: tl.tensor,
    FACTORS: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    """Fill in Σ exp((z − max z) · 2ʲ · factor) over one row z for one factor, for j from 0 to 4.

    Args:
        logits: [N, V], float32, bfloat16 or float16; entries of a row lie side by side.
        stride: from a row to the next.
        factors: float32 [FACTORS], inverse temperatures.
        sums: float64 [N, FACTORS, 5], filled.
        vocab: V.
        FACTORS: number of inverse temperatures.
        TILE: entries that are worked on together.
    """
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, TILE)
    start = logits + row * stride
    factor = tl.load(factors + at)
    own = tl.full((TILE,), LOWEST, tl.float32)
    for begin in range(0, vocab, TILE):
        z = tl.load(start + begin + lane, mask=begin + lane < vocab, other=float("-inf")).to(tl.float32)
        own = tl.maximum(own, z)
    top = tl.max(own, axis=0)
    sum1 = tl.zeros((TILE,), tl.float32)
    sum2 = tl.zeros((TILE,), tl.float32)
    sum4 = tl.zeros((TILE,), tl.float32)
    sum8 = tl.zeros((TILE,), tl.float32)
    sum16 = tl.zeros((TILE,), tl.float32)
    for begin in range(0, vocab, TILE):
        z = tl.load(start + begin + lane, mask=begin + lane < vocab, other=float("-inf")).to(tl.float32)
        x = exponential((z - top) * factor)
        sum1 += x
        x *= x
        sum2 += x
        x *= x
        sum4 += x
        x *= x
        sum8 += x
        x *= x
        sum16 += x
    out = sums + (row * FACTORS + at) * 5
    tl.store(out, tl.sum(sum1.to(tl.float64), axis=0))
    tl.store(out + 1, tl.sum(sum2.to(tl.float64), axis=0))
    tl.store(out + 2, tl.sum(sum4.to(tl.float64), axis=0))
    tl.store(out + 3, tl.sum(sum8.to(tl.float64), axis=0))
    tl.store(out + 4, tl.sum(sum16.to(tl.float64), axis=0))
