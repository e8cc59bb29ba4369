"""Smooth ECE: the calibration error of confidence without bins (Błasiok & Nakkiran 2023).

The residuals x − o of N tokens are smoothed along the confidence x by a Gaussian that is reflected at 0 and 1:

    r_σ(t) = 1/N · Σ_i K_σ(x_i, t) (x_i − o_i)          smECE_σ = ∫ |r_σ(t)| dt over [0, 1]

smECE_σ falls as σ grows. Smooth ECE is its value where it equals its own bandwidth, smECE_σ = σ: miscalibration is
looked for on no finer a scale than its own size. The reflected Gaussian is the heat kernel of [0, 1]; it multiplies the
k-th cosine by exp(−(kπσ)² / 2), so smoothing is a cosine transform there and back.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct

from lossprobe.analysis.calibration.bins import scatter
from lossprobe.analysis.rows.outcomes import CORRECT, TOP_PROB, refuse_not_finite
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.resampling import SEED, Floats
from lossprobe.run.reader import Run

GRID = 1024  # cells of confidence; a power of two, so that a cell's number is exact
STEPS = 20  # halvings of the range of bandwidths: 1e-6
SECANTS, FIRST_BANDWIDTH = 4, 1 / 16  # steps that narrow the range before it is halved, and where they begin
DRAWS = 200
DAMPED_TO_ZERO = 12.3  # number of a cosine times bandwidth from which its factor is exactly 0: sqrt(2 * 745.14) / pi
ROWS_AT_ONCE = 64  # results smoothed together; their cells stay in cache
SUMS = ("count", "residual", "spread")


def residual_sums(run: Run, clusters: Clusters, source: str = "tokens", where: str = "TRUE") -> Floats:
    """Return count, Σ (x − o) and Σ x(1 − x) of each cluster's scored tokens in `GRID` cells of confidence x.

    Args:
        run: the run.
        clusters: what intervals resample, at most some 1,000: each takes 24 KiB.
        source: SQL relation with the columns of `tokens`.
        where: SQL condition on its rows.

    Returns:
        float64 [G, GRID, 3], clusters in order; only those with a scored token.

    Raises:
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    cell = f"least(greatest(floor({TOP_PROB} * {GRID}), 0), {GRID - 1})::INTEGER"
    frame = run.query(f"""
        SELECT {clusters.sql} AS cluster, CASE WHEN top_prob IS NOT NULL THEN {cell} END AS bin,
               count(*)::DOUBLE AS count, sum({TOP_PROB} - {CORRECT}) AS residual,
               sum({TOP_PROB} * (1 - {TOP_PROB})) AS spread
        FROM {source} WHERE unscored IS NULL AND {where} GROUP BY ALL ORDER BY ALL""")
    if not np.isfinite(frame[list(SUMS)].to_numpy()).all():  # without a confidence there is no cell, and no sum in it
        refuse_not_finite(run)
    return scatter(frame, GRID, SUMS)


def smooth_ece(sums: Floats) -> Floats:
    """Return the smooth ECE of sums [..., cells, 3] as [...], which is also its bandwidth; NaN without tokens.

    The bandwidth is no narrower than a cell: where the error is below 1/1024, it is the one at that bandwidth.
    For tokens that all have one confidence it is |mean x − mean o| whatever the bandwidth:

    >>> sums = np.zeros((64, 3))
    >>> sums[40] = (10, 2.5, 1)
    >>> round(float(smooth_ece(sums)), 6)
    0.25
    """
    cells = sums.shape[-2]
    residuals, tokens = sums[..., 1].reshape(-1, cells), sums[..., 0].sum(axis=-1).reshape(-1)
    return _fixed_points(residuals, tokens).reshape(sums.shape[:-2])


def smooth_noise(sums: Floats, seed: int = SEED) -> float:
    """Return the smooth ECE to expect of a perfectly calibrated model with the confidences behind sums [cells, 3].

    It is the mean over `DRAWS` draws of normal residuals with the variance that calibration gives them, Σ x(1 − x).
    """
    drawn = np.random.default_rng(seed).standard_normal((DRAWS, len(sums))) * np.sqrt(sums[:, 2])
    return float(_fixed_points(drawn, np.full(DRAWS, sums[:, 0].sum())).mean())


def _fixed_points(residuals: Floats, tokens: Floats) -> Floats:
    """Return where smECE_σ = σ for residuals [R, cells] over [R] tokens, by halving the range of σ."""
    results = np.full(len(tokens), np.nan)
    present = np.flatnonzero(tokens > 0)
    for start in range(0, len(present), ROWS_AT_ONCE):
        rows = present[start : start + ROWS_AT_ONCE]
        cosines = dct(residuals[rows] / tokens[rows, None])
        least, most = _between(cosines)
        low, high = np.full(len(rows), 1 / cosines.shape[-1]), np.ones(len(rows))
        for _ in range(STEPS):
            middle = (low + high) / 2
            wide_enough = middle >= most
            unknown = np.flatnonzero((middle >= least) & ~wide_enough)
            if len(unknown):
                wide_enough[unknown] = fixed_bandwidth_error(cosines[unknown], middle[unknown]) <= middle[unknown]
            low, high = np.where(wide_enough, low, middle), np.where(wide_enough, middle, high)
        results[rows] = fixed_bandwidth_error(cosines, high)
    return results


def _between(cosines: Floats) -> tuple[Floats, Floats]:
    """Return bandwidths [R] between which smECE_σ = σ, so that most halvings need no error computed.

    As smECE_σ falls, the solution lies between any σ and its smECE_σ. Each σ is found from the two before by the secant
    method; the second one takes the error for noise, which falls as 1/√σ.
    """
    narrowest = 1 / cosines.shape[-1]
    last = np.full(len(cosines), FIRST_BANDWIDTH)
    error = fixed_bandwidth_error(cosines, last)
    least, most, last_gap = np.minimum(error, last), np.maximum(error, last), error - last
    bandwidth = np.clip(np.sqrt(error * FIRST_BANDWIDTH), narrowest, 1.0)
    for _ in range(SECANTS):
        error = fixed_bandwidth_error(cosines, bandwidth)
        least = np.maximum(least, np.minimum(error, bandwidth))
        most = np.minimum(most, np.maximum(error, bandwidth))
        gap = error - bandwidth
        change = np.divide(gap * (bandwidth - last), gap - last_gap, where=gap != last_gap, out=np.zeros_like(gap))
        last, last_gap = bandwidth, gap
        bandwidth = np.clip(bandwidth - change, narrowest, 1.0)
    return least, most


def fixed_bandwidth_error(cosines: Floats, bandwidth: Floats) -> Floats:
    """Return smECE_σ, [R], from the cosine transforms [R, cells] of residuals per token, and bandwidths σ [R].

    Cosines whose factor is 0 in every row are left out: numbers that are almost 0 take a processor many times as long.
    """
    kept = int(min(cosines.shape[-1], DAMPED_TO_ZERO / bandwidth.min() + 2))
    damped = np.zeros_like(cosines)
    factors = np.square(bandwidth[:, None] * (np.pi * np.arange(kept)))
    factors *= -0.5
    np.multiply(np.exp(factors, out=factors), cosines[:, :kept], out=damped[:, :kept])
    smoothed = idct(damped, overwrite_x=True)
    return np.asarray(np.abs(smoothed, out=smoothed).sum(axis=-1))
