"""Computes which entries of the logit gradient become 0 in float16, at each loss scale.

A mean loss over N tokens has the logit gradient (p_v − 1{v = token}) / N. Times the loss scale S, an entry of at most
2^−25 rounds to 0 in float16 (whose least number is 2^−24, and whose ties go to the even neighbour). The tokens' own
entries, −(1 − p) / N, are known one by one; all the others are known through the run's histogram of log10 p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.vocabulary import BINS, LOWEST, PER_DECADE, histogram_sums
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run
from lossprobe.units import plural

UNDERFLOW = 2.0**-25  # what is no larger becomes 0
LARGEST = 65504.0
HEADROOM = 16.0
SCALES = tuple(2**power for power in range(25))
L1_LIMIT = 1e-3
BIN_SQL = f"greatest(0, least({BINS - 1}, floor((-n / ln(10) - ({LOWEST})) * {PER_DECADE}) + 1))::INTEGER"


@dataclass(frozen=True)
class HalfPrecision:
    """The part of the gradient that float16 loses.

    Attributes:
        table: one row per loss scale 2^0 … 2^24: scale, entries_lost_share (of all gradient entries),
            l1_lost_share (of Σ |g|), l2_lost (√(Σ lost g² / Σ g²)); NaN where there is no gradient at all.
        recommended_scale: the least scale that loses under 1e-3 of Σ |g| and keeps the largest entry 16 times below
            65,504; a lower bound, since activations and weights deeper in the model can underflow first. None where
            no scale does.
        note: what a reader must know.
    """

    table: pd.DataFrame = field(repr=False)
    recommended_scale: int | None
    note: str


def measure_half_precision(run: Run, source: str, batch_tokens: int) -> HalfPrecision | None:
    """Return what float16 loses of a run's logit gradients, or None where the run has no histogram.

    Entries of the histogram are counted to the bin, of 0.1 decades; the bin that holds the limit is split as if its
    entries were spread evenly over log p, so each share is off by that bin's share at the very most. Entries below
    10^−12 (and those that the model masks) are one bin and count as lost at every scale: too many by what is above
    2^−25 N / S. Σ p² of a bin is taken as (Σ p)² / pairs, low by at most 1.3 %.

    Args:
        run: the run, all of it: the histogram knows documents, not tokens.
        source: SQL relation of its scored rows, with `n` (loss), `miss` and `others2`; see `scored_source`.
        batch_tokens: N, tokens over which the loss is a mean.

    Raises:
        OutputError: a stored sum of the histogram is missing, NaN or infinite, which scoring never writes.
    """
    others = _other_entries(run, source)
    if others is None:
        return None
    limits = batch_tokens * UNDERFLOW / np.array(SCALES, float)  # of p, and of 1 - p of the token
    targets, totals = _target_entries(run, source, batch_tokens)
    lost = targets + _lost_others(others, limits)
    share = lost / np.where(totals > 0, totals, np.nan)  # no gradient at all: nothing of it can be lost
    table = pd.DataFrame(
        {
            "scale": SCALES,
            "entries_lost_share": share[:, 0],
            "l1_lost_share": share[:, 1],
            "l2_lost": np.sqrt(share[:, 2]),
        }
    )
    largest = float(run.scalar(f"SELECT max(miss) FROM {source}")) / batch_tokens
    good = (share[:, 1] < L1_LIMIT) & (np.array(SCALES) * largest <= LARGEST / HEADROOM)
    recommended = SCALES[int(good.argmax())] if good.any() else None
    return HalfPrecision(table, recommended, _note(batch_tokens, largest, recommended))


def _note(batch_tokens: int, largest: float, recommended: int | None) -> str:
    if largest == 0:
        return "fp16: n/a, every loss is 0 and so is the gradient"
    words = f"fp16: gradients of the logits of the hard loss, a mean over {plural(batch_tokens, 'token')}"
    if recommended is None:
        most = f"2^{len(SCALES) - 1}"
        return f"{words}; no scale up to {most} loses under {L1_LIMIT:g} of their sum and stays clear of overflow"
    return f"{words}; the scale is a lower bound, activations and weights deeper in the model can underflow first"


def _other_entries(run: Run, source: str) -> Floats | None:
    """Return entries, Σ p and Σ p² per bin, [bins, 3], of the vocabulary without the tokens themselves."""
    bins = histogram_sums(run)
    if not len(bins):
        return None
    pairs, mass, hits = bins[0].T
    tokens = run.query(f"SELECT {BIN_SQL} AS bin, sum(exp(-n)) AS mass FROM {source} GROUP BY 1 ORDER BY 1")
    grid = np.stack([pairs - hits, mass, mass], axis=1)
    grid[tokens["bin"].to_numpy(), 1] -= tokens["mass"]
    # Rounding can put a token into its neighbour's bin: the mass left must still be what that many entries can have.
    edges = _edges()
    grid[:, 1] = np.clip(grid[:, 1], grid[:, 0] * edges[:-1], grid[:, 0] * edges[1:])
    grid[:, 2] = grid[:, 1] ** 2 / np.maximum(grid[:, 0], 1.0)
    return grid


def _edges() -> Floats:
    """Return the edges of the bins in p: 0, 10^−12, …, 1."""
    return np.concatenate([[0.0], 10.0 ** (LOWEST + np.arange(BINS) / PER_DECADE)])


def _lost_others(others: Floats, limits: Floats) -> Floats:
    """Return entries, Σ p and Σ p² at or below each limit, [limits, 3]; exact but for the bin that a limit splits."""
    low, high = _edges()[1:-1], _edges()[2:]
    inside = np.clip(limits[:, None], low, high)  # [limits, bins but the lowest]
    parts = (
        np.log(inside / low) / np.log(high / low),
        (inside - low) / (high - low),
        (inside**2 - low**2) / (high**2 - low**2),
    )
    return np.stack([others[0, i] + part @ others[1:, i] for i, part in enumerate(parts)], axis=1)


def _target_entries(run: Run, source: str, batch_tokens: int) -> tuple[Floats, Floats]:
    """Return what is lost of the tokens' own entries at each scale, [scales, 3], and what there is in all, [3].

    The three are entries, Σ |g| and Σ g², the gradients times N. In all, a token has V entries, 2 (1 − p) and (1 − p)²
    plus Σ p² of the others.
    """
    # An entry is lost at the scales 2^k with k <= log2(2^-25 N / (1 - p)). Some DuckDBs refuse the logarithm of 0.
    last = f"floor({math.log2(batch_tokens * UNDERFLOW)!r} - log2(greatest(miss, 1e-300)))"
    frame = run.query(f"""
        SELECT greatest(-1, least({len(SCALES) - 1}, {last}))::INTEGER AS last, count(*)::DOUBLE AS entries,
               sum(miss) AS mass, sum(miss * miss) AS squares, sum(others2) AS others
        FROM {source} GROUP BY 1 ORDER BY 1""")
    sums = np.zeros((len(SCALES) + 1, 3))
    sums[frame["last"].to_numpy() + 1] = frame[["entries", "mass", "squares"]].to_numpy()
    lost = sums[::-1].cumsum(axis=0)[::-1][1:]
    tokens, mass, squares = sums.sum(axis=0)
    return lost, np.array([tokens * run.vocab_size, 2 * mass, squares + float(frame["others"].sum())])
