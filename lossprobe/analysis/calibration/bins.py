"""How often the model's first choice is right, by its probability: bins, calibration errors and what noise alone gives.

A scored token has the confidence x (probability of the first choice) and o = 1 where that choice was the token, else 0.
Every figure is a function of sums [..., B, 5] over the tokens of B bins of x, in this order:

    n = count, Σ x, Σ o, Σ x², Σ x·o

so that a figure of resampled clusters costs no second look at the tokens. A bin is [low, high); the last one has x = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import erf

from lossprobe.analysis.rows.outcomes import CORRECT, TOP_PROB, refuse_not_finite
from lossprobe.analysis.rows.ranked_values import ranked_batches, values_at
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import Clusters, jackknife_ratio
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

BINS = 15
MCE_LEAST = 100  # tokens; the gap of a smaller bin is mostly noise, and the largest of many is noise at its worst
SUMS = {
    "count": "count(*)::DOUBLE",
    "confidence": f"sum({TOP_PROB})",
    "correct": f"sum({CORRECT})",
    "confidence2": f"sum({TOP_PROB} * {TOP_PROB})",
    "confidence_correct": f"sum({TOP_PROB} * {CORRECT})",
}
QUADRATURE_POINTS = 200
SPREADS = 10.0  # a normal variable stays within so many standard deviations: 1 - erf(10 / √2) < 2e-23


def equal_width_edges(bins: int = BINS) -> Floats:
    """Return the inner edges k / bins, float64 [bins − 1].

    >>> equal_width_edges(4).tolist()
    [0.25, 0.5, 0.75]
    """
    return np.arange(1, bins) / bins


def equal_mass_edges(run: Run, bins: int = BINS, source: str = "tokens", where: str = "TRUE") -> Floats:
    """Return the inner edges of bins with about as many scored tokens each, float64 [at most bins − 1], ascending.

    Edge k is the smallest stored confidence at or above the k / bins quantile (between ranks as numpy interpolates),
    and what equals it lies in the bin above it: tokens of equal confidence always share a bin, and no bin is empty.
    Where ties make edges equal there are fewer bins.

    Args:
        run: the run.
        bins: how many.
        source: SQL relation with the columns of `tokens`.
        where: SQL condition on its rows.

    Raises:
        OutputError: a confidence is missing, NaN or infinite, which scoring never writes.
    """
    scored = f"FROM {source} WHERE unscored IS NULL AND {where}"
    last = int(run.scalar(f"SELECT count(*) {scored}")) - 1
    if last < 0:
        return np.empty(0)
    ranks = [-(-k * last // bins) for k in range(1, bins)]  # whole numbers: k / bins · last would be rounded
    at: dict[int, float] = {}
    wanted = {0, *ranks, last}
    for first, values in ranked_batches(run, "top_prob", scored, [range(rank, rank + 1) for rank in wanted]):
        at |= values_at(wanted, first, values)
    if not np.isfinite([at[0], at[last]]).all():
        refuse_not_finite(run)
    edges = np.unique([at[rank] for rank in ranks])
    return edges[edges > at[0]]


def bin_sums(run: Run, clusters: Clusters, edges: Floats, source: str = "tokens", where: str = "TRUE") -> Floats:
    """Return the sums of the scored tokens of each cluster and bin, from one scan out of core.

    Args:
        run: the run.
        clusters: what intervals resample.
        edges: [B − 1] inner edges.
        source: SQL relation with the columns of `tokens`.
        where: SQL condition on its rows.

    Returns:
        float64 [G, B, 5], clusters in order; only those with a scored token.

    Raises:
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    return grouped_bin_sums(run, clusters.sql, edges, source, where)[1]


def grouped_bin_sums(
    run: Run, key: str, edges: Floats, source: str = "tokens", where: str = "TRUE"
) -> tuple[pd.Index, Floats]:
    """Return the K values of a SQL expression over `source`, in order, and the sums of each, float64 [K, B, 5].

    For the rest see `bin_sums`.
    """
    number = " + ".join(["0", *[f"({TOP_PROB} >= ?)::INTEGER" for _ in edges]])
    frame = run.query(
        f"""
        SELECT {key} AS key, CASE WHEN top_prob IS NOT NULL THEN {number} END AS bin,
               {", ".join(f"{sql} AS {name}" for name, sql in SUMS.items())}
        FROM {source} WHERE unscored IS NULL AND {where} GROUP BY ALL ORDER BY ALL""",
        edges.tolist(),  # as parameters: a literal of 17 digits would be read as a DECIMAL and rounded twice
    )
    if not np.isfinite(frame[list(SUMS)].to_numpy()).all():  # without a confidence there is no bin, and no sum in it
        refuse_not_finite(run)
    numbers, keys = pd.factorize(frame["key"])
    return keys, scatter(frame.assign(cluster=numbers), len(edges) + 1, tuple(SUMS))


def scatter(frame: pd.DataFrame, bins: int, names: Sequence[str]) -> Floats:
    """Return the named columns of a frame as float64 [G, bins, names], by its columns `cluster` and `bin`; else 0."""
    clusters, row = np.unique(frame["cluster"].to_numpy(), return_inverse=True)
    sums = np.zeros((len(clusters), bins, len(names)))
    column = frame["bin"].to_numpy(int)
    for index, name in enumerate(names):
        sums[row, column, index] = frame[name].to_numpy(float)
    return sums


def expected_calibration_error(sums: Floats) -> Floats:
    """Return the ECE of sums [..., B, 5] as [...]: Σ_b |Σ (x − o)| / N (Naeini et al. 2015); NaN without tokens.

    Only the first three of a bin's sums are looked at, and there may be no others.

    Confidences .95 and 1 of which the first is right, in one bin:

    >>> float(expected_calibration_error(np.array([[2, 1.95, 1, 1.9025, 0.95]])))
    0.475
    """
    n, x, o, *_ = np.moveaxis(sums, -1, 0)
    return _over(np.abs(x - o).sum(axis=-1), n.sum(axis=-1))


def maximum_calibration_error(sums: Floats, least: int = MCE_LEAST) -> Floats:
    """Return the MCE of sums [..., B, 5] as [...]: the largest |mean x − mean o| of a bin (Naeini et al. 2015).

    Bins with fewer than `least` tokens are left out; NaN where none is left, as in a text of fewer than `least` tokens.
    """
    n, x, o, *_ = np.moveaxis(sums, -1, 0)
    used = n >= max(1, least)
    largest = np.where(used, np.abs(_over(x - o, n, 0.0)), 0.0).max(axis=-1)
    return np.where(used.any(axis=-1), largest, np.nan)


def debiased_squared_error(sums: Floats) -> Floats:
    """Return the debiased squared L2 calibration error of sums [..., B, 5] as [...] (Kumar, Liang & Ma 2019).

    Σ_b n/N · [gap² − o(1 − o) / (n − 1)] with o the bin's accuracy; its mean is 0 under calibration, so it may be
    negative. Bins with fewer than two tokens add nothing; NaN where every bin is such.
    """
    n, x, o, *_ = np.moveaxis(sums, -1, 0)
    noise = _over(o * (n - o), n * n * (n - 1))  # NaN below two tokens, as 0 / 0 is there
    terms = np.where(n >= 2, n * (_over(x - o, n) ** 2 - noise), 0.0)
    return np.where((n >= 2).any(axis=-1), _over(terms.sum(axis=-1), n.sum(axis=-1)), np.nan)


def top1_brier(sums: Floats) -> Floats:
    """Return the Brier score of the first choice, Σ (x − o)² / N, of sums [..., B, 5] as [...]; NaN without tokens.

    It is `reliability` − `resolution` + `uncertainty` + `within_bin`, whatever the bins.
    """
    n, _, o, xx, xo = np.moveaxis(sums, -1, 0)
    return _over((xx - 2 * xo + o).sum(axis=-1), n.sum(axis=-1))


def reliability(sums: Floats) -> Floats:
    """Return Σ_b n/N · (mean x − mean o)² of sums [..., B, 5] as [...] (Murphy 1973); 0 is best."""
    n, x, o, *_ = np.moveaxis(sums, -1, 0)
    return _over(_over((x - o) ** 2, n, 0.0).sum(axis=-1), n.sum(axis=-1))


def resolution(sums: Floats) -> Floats:
    """Return Σ_b n/N · (the bin's accuracy − accuracy)² of sums [..., B, 5] as [...] (Murphy 1973); more is better."""
    n, _, o, *_ = np.moveaxis(sums, -1, 0)
    total = n.sum(axis=-1)
    mean = _over(o.sum(axis=-1), total)
    return _over((n * (_over(o, n, 0.0) - mean[..., None]) ** 2).sum(axis=-1), total)


def uncertainty(sums: Floats) -> Floats:
    """Return accuracy · (1 − accuracy) of sums [..., B, 5] as [...] (Murphy 1973): no forecast changes it."""
    n, _, o, *_ = np.moveaxis(sums, -1, 0)
    mean = _over(o.sum(axis=-1), n.sum(axis=-1))
    return mean * (1 - mean)


def within_bin(sums: Floats) -> Floats:
    """Return what the other three parts of the Brier score miss where confidences in a bin differ, as [...].

    Σ_b n/N · (Var x − 2 Cov(x, o)) over the tokens of each bin (Stephenson, Coelho & Jolliffe 2008).
    """
    n, x, o, xx, xo = np.moveaxis(sums, -1, 0)
    terms = xx - _over(x * x, n, 0.0) - 2 * (xo - _over(x * o, n, 0.0))
    return _over(terms.sum(axis=-1), n.sum(axis=-1))


def expected_noise(sums: Floats) -> float:
    """Return the ECE to expect of a perfectly calibrated model with the confidences behind sums [B, 5].

    Under calibration Σ (x − o) of a bin has the variance Σ x(1 − x) and is close to normal: its expected absolute
    value is √(2/π · Σ x(1 − x)). For 100 tokens of confidence one half in one bin:

    >>> round(expected_noise(np.array([[100, 50, 50, 25, 25.0]])), 6)
    0.039894
    """
    n, x, _, xx, _ = sums.T
    return float(_over(np.sqrt(2 / np.pi * _spread(x, xx)).sum(), n.sum()))


def maximum_noise(sums: Floats, least: int = MCE_LEAST) -> float:
    """Return the MCE to expect of a perfectly calibrated model with the confidences behind sums [B, 5].

    The largest of independent |Z_b|, Z_b normal with the standard deviation s_b = √(Σ x(1 − x)) / n, has the mean
    ∫ 1 − Π_b erf(t / (√2 s_b)) dt. NaN where no bin has `least` tokens. For two bins of equal s it is 2 s / √π:

    >>> round(maximum_noise(np.array([[100, 50, 50, 25, 25.0]] * 2)), 6)
    0.056419
    """
    n, x, _, xx, _ = sums[sums[:, 0] >= max(1, least)].T
    if not len(n):
        return float("nan")
    deviation = np.sqrt(_spread(x, xx)) / n
    deviation = deviation[deviation > 0]
    if not len(deviation):
        return 0.0
    points, weights = np.polynomial.legendre.leggauss(QUADRATURE_POINTS)
    half = SPREADS / 2 * float(deviation.max())
    within = erf((points + 1) * half / (np.sqrt(2) * deviation[:, None])).prod(axis=0)
    return float(((1 - within) * weights).sum() * half)


def bin_table(sums: Floats, edges: Floats) -> pd.DataFrame:
    """Return one row per bin of sums [G, B, 5] with inner edges [B − 1].

    Columns: bin; low, high; count (tokens); mean_confidence; accuracy; gap (mean_confidence − accuracy, positive when
    the model is over-confident); gap_low, gap_high (95 % jackknife-t over the clusters with tokens in the bin; NaN with
    fewer than two). An empty bin has the count 0 and NaN elsewhere.
    """
    n, x, o, *_ = sums.sum(axis=0).T
    intervals = [_gap_interval(sums[:, bin_]) for bin_ in range(len(n))]
    return pd.DataFrame(
        {
            "bin": np.arange(len(n)),
            "low": [0.0, *edges],
            "high": [*edges, 1.0],
            "count": n.astype(np.int64),
            "mean_confidence": _over(x, n),
            "accuracy": _over(o, n),
            "gap": _over(x - o, n),
            "gap_low": [low for low, _ in intervals],
            "gap_high": [high for _, high in intervals],
        }
    ).astype({"gap_low": float, "gap_high": float})


def _gap_interval(sums: Floats) -> Interval:
    """Return the interval of mean x − mean o in one bin, from its sums [G, 5]."""
    own = sums[sums[:, 0] > 0]
    if not len(own):
        return NO_INTERVAL
    return jackknife_ratio(own[:, 1] - own[:, 2], own[:, 0]).interval


def _spread(x: Floats, xx: Floats) -> Floats:
    """Return Σ x(1 − x) of each bin; rounding must not make it negative where every x is 1."""
    return np.maximum(x - xx, 0.0)


def _over(numerator: Floats, denominator: Floats, empty: float = np.nan) -> Floats:
    """Return numerator / denominator, and `empty` where the denominator is 0."""
    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), empty)
    np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)
    return out
