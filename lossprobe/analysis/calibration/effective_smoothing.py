"""The label smoothing that a run's predictions look like: three estimates of ε, and whether they agree.

A model at the optimum of a loss smoothed by ε predicts q = (1 − ε) p + ε / K instead of the true p (K entries). No
single trace of that is proof, so three are read, and an ε is named only where all of them show it:

    slope   the first choice is right with E[o − 1/K | x] = (x − 1/K) / (1 − ε) at confidence x, so that the
            regression of o − 1/K on x − 1/K through 0 has the slope 1 / (1 − ε)
    tail    of the pairs (token, entry) with q below τ, per token: Q = Σ q, P = hits, f = pairs / K; then
            Q = (1 − ε) P + ε f, so that ε = (Q − P) / (f − P)
    floor   no q is below ε / K, and most are little above it: ε is about K times the mode of log q

The spread of log q tells such a floor from the wide tail of a natural distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.vocabulary import BINS, LOWEST, PER_DECADE, vocabulary_sums
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats, at_most
from lossprobe.run.reader import Run

TAU_FLOORS, TYPICAL_EPSILON = 6.5, 0.1  # tau is 6.5 times the floor of a model smoothed by 0.1
AGREEMENT = 1.5
WIDEST_NATS = 2.0
LARGEST_EPSILON = 0.5  # from about there on the floor itself is no longer below tau
NO_EVIDENCE = "no evidence of smoothing"
CAVEATS = (
    "effective smoothing is a shape of the predictions, not their history: temperature, noise in the logits, weight "
    "decay and distillation can look like it, and over-confidence from over-training can hide it",
    "its limits (three estimates within a factor 1.5, spread below 2 nats) were set on one small model",
)


@dataclass(frozen=True)
class EffectiveSmoothing:
    """The label smoothing that a run's predictions look like.

    An estimate is None where it cannot be given, and may be negative: then the model is the opposite of smoothed.

    Attributes:
        slope_epsilon: from the accuracy of the first choice against its confidence.
        slope_epsilon_interval: its 95 % jackknife-t interval over documents or blocks.
        tail_epsilon: from probabilities below `tau`: what the model gave, and how often these entries came.
        mode_epsilon: from the most frequent log10 p, to ± 12 %; None where that is below 10^−12.
        tail_iqr_nats: interquartile range of log p over all pairs of token and vocabulary entry; None where the lower
            quartile is below 10^−12.
        tau: the probability below which is tail.
        epsilon: median of the three where they agree, else None.
        verdict: "consistent with smoothing ε ≈ …" or "no evidence of smoothing".
        reason: what decided it.
        notes: what a reader must know, one line each.
    """

    slope_epsilon: float | None
    slope_epsilon_interval: Interval
    tail_epsilon: float | None
    mode_epsilon: float | None
    tail_iqr_nats: float | None
    tau: float
    epsilon: float | None
    verdict: str
    reason: str
    notes: list[str] = field(repr=False)

    @property
    def finding(self) -> str:
        """The result in one line."""
        return f"{self.verdict}: {self.reason}"


def effective_smoothing(
    run: Run, outcomes: pd.DataFrame | None = None, vocabulary: Floats | None = None
) -> EffectiveSmoothing:
    """Return the label smoothing that a run's predictions look like.

    Args:
        run: the run.
        outcomes: what `outcomes.outcome_sums` returns for at most as many clusters as are resampled, where it was read
            already.
        vocabulary: what `vocabulary.vocabulary_sums` returns for them, where it was read already.

    Raises:
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    clusters = at_most(find_clusters(run))
    sums = outcome_sums(run, clusters) if outcomes is None else outcomes
    slope, interval = slope_epsilon(sums, run.vocab_size)
    bins = (vocabulary_sums(run, clusters) if vocabulary is None else vocabulary).sum(axis=0)
    edge = tau_edge(run.vocab_size)
    tail, mode = tail_epsilon(bins, run.vocab_size, edge), mode_epsilon(bins[:, 0], run.vocab_size)
    spread = interquartile_nats(bins[:, 0])
    against = _objection({"slope": slope, "tail": tail, "floor": mode}, spread, interval)
    shown = f"slope {_shown(slope)}, tail {_shown(tail)}, floor {_shown(mode)}"
    epsilon = None if against else float(np.median([value for value in (slope, tail, mode) if value is not None]))
    return EffectiveSmoothing(
        slope_epsilon=slope,
        slope_epsilon_interval=interval,
        tail_epsilon=tail,
        mode_epsilon=mode,
        tail_iqr_nats=spread,
        tau=10.0 ** (edge / PER_DECADE),
        epsilon=epsilon,
        verdict=NO_EVIDENCE if epsilon is None else f"consistent with smoothing ε ≈ {epsilon:.2g}",
        reason=f"{shown}; {against}" if against else shown,
        notes=list(CAVEATS),
    )


def slope_epsilon(sums: pd.DataFrame, vocab_size: int) -> tuple[float | None, Interval]:
    """Return ε = 1 − 1 / slope and its interval, from `outcome_sums`; None where the slope is not positive.

    With K = 2, x = .75 and always right, the slope is (1/2 · 1/4) / (1/4)² = 2:

    >>> one = {"tokens": 1, "confidence": 0.75, "correct": 1, "confidence2": 0.5625, "confidence_correct": 0.75}
    >>> slope_epsilon(pd.DataFrame([one, one]), 2)
    (0.5, Interval(low=0.5, high=0.5))
    """
    chance = 1.0 / vocab_size
    square = sums["confidence2"] - 2 * chance * sums["confidence"] + chance**2 * sums["tokens"]
    product = sums["confidence_correct"] - chance * (sums["confidence"] + sums["correct"]) + chance**2 * sums["tokens"]
    if not square.sum() > 0.0:
        return None, NO_INTERVAL
    slope = jackknife_ratio(product, square)
    if not slope.value > 0.0:
        return None, NO_INTERVAL
    epsilon = 1.0 - 1.0 / slope.value
    low, _ = slope.interval
    if low is None or low <= 0.0:  # ε has no lower end where the slope may be 0
        return epsilon, NO_INTERVAL
    return epsilon, slope.interval.map(lambda end: 1.0 - 1.0 / end)


def tau_edge(vocab_size: int) -> int:
    """Return τ in tenths of a decade: the last bin edge that is at most 0.65 / K.

    That is 10^−3.5 for K = 2,048, for which it was chosen; the same multiple of 1 / K for any other vocabulary.

    >>> [tau_edge(size) for size in (64, 2048, 50257)]
    [-20, -35, -49]
    """
    return math.floor(PER_DECADE * math.log10(TAU_FLOORS * TYPICAL_EPSILON / vocab_size))


def tail_epsilon(bins: Floats, vocab_size: int, edge: int) -> float | None:
    """Return (Q − P) / (f − P) of the bins below an edge (see the top), or None where f ≤ P.

    Args:
        bins: [121, 3], pairs, Σ p and hits.
        vocab_size: K.
        edge: τ in tenths of a decade.
    """
    tokens = bins[:, 2].sum()
    pairs, given, hits = bins[: edge - LOWEST * PER_DECADE + 1].sum(axis=0)
    share = pairs / vocab_size
    return float((given - hits) / (share - hits)) if tokens > 0 and share > hits else None


def mode_epsilon(pairs: Floats, vocab_size: int) -> float | None:
    """Return K times the centre of the bin with most pairs [121], or None where that is the one below 10^−12.

    A thousand pairs between 10^−4 and 10^−3.9, of 2,048 entries:

    >>> round(mode_epsilon(np.bincount([81] * 1000, minlength=121).astype(float), 2048), 6)
    0.229789
    """
    most = int(pairs.argmax())
    if most == 0:
        return None
    return float(vocab_size * 10.0 ** (LOWEST + (most - 0.5) / PER_DECADE))


def interquartile_nats(pairs: Floats) -> float | None:
    """Return the interquartile range of log p in nats, interpolated within the bins [121].

    None without pairs, and where the lower quartile is below 10^−12. In two bins side by side with equal counts the
    quartiles are the middles of the bins, a tenth of a decade apart:

    >>> round(interquartile_nats(np.bincount([80, 81], minlength=121).astype(float)), 6)
    0.230259
    """
    total = pairs.sum()
    if not total > 0 or pairs[0] >= 0.25 * total:
        return None
    upper_ends = np.arange(BINS) / PER_DECADE * math.log(10.0)
    low, high = np.interp([0.25 * total, 0.75 * total], pairs.cumsum(), upper_ends)
    return float(high - low)


def _objection(estimates: dict[str, float | None], spread: float | None, slope: Interval) -> str | None:
    """Return why three estimates are no evidence, or None where they are.

    The spread comes first: without a floor the others say nothing of smoothing. Over-confidence and a smoothed model
    short of its optimum are named only where the slope's interval shows them.
    """
    given = {name: value for name, value in estimates.items() if value is not None}
    absent = [name for name in estimates if name not in given]
    low, high = slope
    over_confident = high is not None and high < 0.0
    if absent:
        return f"no {' and no '.join(absent)} can be given"
    if spread is None or spread >= WIDEST_NATS:
        width = "unbounded" if spread is None else f"{spread:.1f} nats"
        stretched = ", if over-confidence has not stretched it" if over_confident else ""
        return f"spread of log p {width}, a floor leaves less than {WIDEST_NATS:.0f}{stretched}"
    if min(given.values()) <= 0.0:
        below = " and ".join(name for name, value in given.items() if value <= 0.0)
        return f"{below} not above 0" + (": over-confidence hides smoothing, if there is any" if over_confident else "")
    if max(given.values()) > AGREEMENT * min(given.values()):
        like = ", as in a smoothed model short of its optimum, or at a high temperature"
        return f"more than a factor {AGREEMENT} apart: no one ε fits{like if low is not None and low > 0.0 else ''}"
    if float(np.median(list(given.values()))) > LARGEST_EPSILON:
        return f"over {LARGEST_EPSILON}, where the tail below τ says nothing"
    if low is None or low <= 0.0:
        return "the slope's interval holds 0" if low is not None else "no interval of the slope"
    return None


def _shown(epsilon: float | None) -> str:
    return "n/a" if epsilon is None else f"{epsilon:.3f}"
