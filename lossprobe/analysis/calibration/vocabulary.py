"""Calibration of every probability that the model gave, not of its first choice alone, by log10 p.

The pass counts all N · V pairs (scored token, vocabulary entry) in bins of log10 p. In a bin, c pairs with the summed
probability Q = Σ p should hold Q hits, pairs whose entry was the token; P is how many they hold. Bins have to be
logarithmic: nearly all pairs have a probability near 0. Figures are functions of sums [..., 121, 3]: c, Q and P.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.special import gammaln, xlog1py, xlogy

from lossprobe.analysis.calibration.bins import scatter
from lossprobe.analysis.rows.outcomes import not_finite
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import Clusters, jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

LOWEST, PER_DECADE = -12, 10  # as the pass counts, see `run.schema.HISTOGRAM_COLUMNS`
BINS = 1 - LOWEST * PER_DECADE
SUMS = ("pairs", "sum_p", "hits")


def vocabulary_sums(run: Run, clusters: Clusters) -> Floats:
    """Return pairs, Σ p and hits of each cluster and bin, float64 [G, 121, 3], clusters in order.

    The pass counts per document, so that the blocks of a single document are one cluster here.

    Raises:
        OutputError: a stored sum is missing, NaN or infinite, which scoring never writes.
    """
    return histogram_sums(run, clusters.sql if clusters.unit == "document" else "0")


def histogram_sums(run: Run, cluster: str = "0") -> Floats:
    """Return pairs, Σ p and hits of each bin, float64 [G, 121, 3], for every value of a SQL expression over documents.

    Without an expression G is 1, or 0 where the run has no histogram.

    Raises:
        OutputError: a stored sum is missing, NaN or infinite, which scoring never writes.
    """
    frame = run.query(f"""
        SELECT {cluster} AS cluster, bin, {", ".join(f"sum({name})::DOUBLE AS {name}" for name in SUMS)}
        FROM histogram GROUP BY ALL ORDER BY ALL""")
    if not np.isfinite(frame[list(SUMS)].to_numpy()).all():
        raise not_finite(run, "a stored number of the histogram")
    return scatter(frame, BINS, SUMS)


def vocabulary_error(sums: Floats) -> Floats:
    """Return Σ_b |Q_b − P_b| / N of sums [..., 121, 3] as [...] (Full-ECE, Liu et al. 2024, in bins of log10 p).

    N is the number of tokens, the sum of all hits, so that the error lies between 0 and 2; NaN without tokens. Two
    tokens, two entries of probability .8 and .2, and the token is the likelier one once:

    >>> float(vocabulary_error(np.array([[2, 0.4, 1], [2, 1.6, 1]])).round(6))
    0.6
    """
    _, expected, hits = np.moveaxis(sums, -1, 0)
    tokens = hits.sum(axis=-1)
    error = np.full(tokens.shape, np.nan)
    np.divide(np.abs(expected - hits).sum(axis=-1), tokens, out=error, where=tokens > 0)
    return error


def vocabulary_noise(sums: Floats) -> float:
    """Return the error to expect of a perfectly calibrated model with the probabilities behind sums [121, 3].

    A token has at most one hit, so under calibration the hits of a bin are at most n = min(c, N) independent events of
    mean total Q. Their mean absolute deviation is at most that of n events equally likely, p = Q / n (Hoeffding 1956),

        2 n p (1 − p) · Pr[Binomial(n − 1, p) = ⌊n p⌋]      (De Moivre; Diaconis & Zabell 1991)

    which is about √(2/π · Q (1 − Q / n)). The result is that, summed over bins and divided by N: a few per cent too
    high. For one token and two entries of one half, in one bin and then apart:

    >>> vocabulary_noise(np.array([[2, 1.0, 1]])), vocabulary_noise(np.array([[1, 0.5, 1], [1, 0.5, 0]]))
    (0.0, 1.0)
    """
    pairs, expected, hits = sums.T
    tokens = hits.sum()
    if tokens <= 0:
        return float("nan")
    used = expected > 0
    n = np.minimum(pairs[used], tokens)
    p = np.minimum(expected[used] / n, 1.0)
    mode = np.minimum(np.floor(n * p), n - 1)
    log_choose = gammaln(n) - gammaln(mode + 1) - gammaln(n - mode)
    probability = np.exp(log_choose + xlogy(mode, p) + xlog1py(n - 1 - mode, -p))
    return float((2 * n * p * (1 - p) * probability).sum() / tokens)


def vocabulary_table(sums: Floats) -> pd.DataFrame:
    """Return one row per bin of sums [G, 121, 3].

    Columns: bin; p_low, p_high; pairs; sum_p; hits; hits_per_expected (hits / sum_p: below 1 the model gave these
    entries too much); ratio_low, ratio_high, its 95 % jackknife-t interval over the clusters with such pairs. The ratio
    is NaN without pairs, its interval also where fewer than two clusters have a hit: what never varies shows no spread.
    """
    total = sums.sum(axis=0)
    ratios = [_ratio(sums[:, bin_]) for bin_ in range(BINS)]
    ends = 10.0 ** (LOWEST + np.arange(BINS) / PER_DECADE)
    return pd.DataFrame(
        {
            "bin": np.arange(BINS),
            "p_low": np.append(0.0, ends[:-1]),
            "p_high": ends,
            "pairs": total[:, 0].astype(np.int64),
            "sum_p": total[:, 1],
            "hits": total[:, 2].astype(np.int64),
            "hits_per_expected": [ratio.value for ratio in ratios],
            "ratio_low": [ratio.interval.low for ratio in ratios],
            "ratio_high": [ratio.interval.high for ratio in ratios],
        }
    ).astype({"ratio_low": float, "ratio_high": float})


def _ratio(sums: Floats) -> Estimate:
    """Return hits / Σ p of one bin, sums [G, 3], with its interval cut at 0."""
    own = sums[sums[:, 1] > 0]
    if not len(own):
        return Estimate(math.nan)
    ratio = jackknife_ratio(own[:, 2], own[:, 1])
    return Estimate(ratio.value) if (own[:, 2] > 0).sum() < 2 else ratio.within(0.0, math.inf)
