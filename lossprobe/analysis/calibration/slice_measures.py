"""The calibration of many slices at once, from sums per slice and cluster: no loop over the slices looks at a token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.calibration.bins import (
    equal_width_edges,
    expected_calibration_error,
    expected_noise,
    grouped_bin_sums,
)
from lossprobe.analysis.rows.outcomes import OUTCOMES, standard_errors
from lossprobe.analysis.stats.jackknife import grouped_errors, t_quantile
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run


def slice_measures(sums: pd.DataFrame) -> pd.DataFrame:
    """Return one row per key of `outcome_sums`: every column of a slice that needs no bins, and copies per token."""
    starts = np.flatnonzero((sums["key"] != sums["key"].shift()).to_numpy())
    totals = np.add.reduceat(sums[list(OUTCOMES)].to_numpy(float), starts)
    total = dict(zip(OUTCOMES, totals.T, strict=True))
    count = total["tokens"]
    clusters = np.diff([*starts, len(sums)])
    gap = (total["confidence"] - total["correct"]) / count
    half = _half_widths((sums["confidence"] - sums["correct"]).to_numpy(float), sums["tokens"].to_numpy(float), starts)
    excess = total["nats"] - total["entropy"]
    return pd.DataFrame(
        {
            "key": sums["key"].to_numpy()[starts],
            "count": count.astype(np.int64),
            "clusters": clusters.astype(np.int64),
            "mean_loss_nats": total["nats"] / count,
            "accuracy": total["correct"] / count,
            "mean_confidence": total["confidence"] / count,
            "confidence_gap": gap,
            "low": gap - half,
            "high": gap + half,
            "gap_z": standard_errors(gap * count, total["spread"], count),
            "nll_minus_entropy_nats": excess / count,
            "excess_z": standard_errors(excess, total["varentropy"], count),
            "brier": total["brier"] / count,
            "copies": total["copies"] / count,
        }
    )


def with_errors(measures: pd.DataFrame, run: Run, key: str, source: str) -> pd.DataFrame:
    """Return the rows of `slice_measures` in order of `key`, with their `ece` and `ece_noise_floor`."""
    keys, sums = grouped_bin_sums(run, key, equal_width_edges(), source)
    floors = [expected_noise(own) for own in sums]
    errors = pd.DataFrame({"key": keys, "ece": expected_calibration_error(sums), "ece_noise_floor": floors})
    merged = measures.merge(errors, on="key", validate="one_to_one")
    merged["ece_noise_floor"] *= np.sqrt(merged["copies"])  # noise of tokens / copies tokens
    return merged


def _half_widths(numerator: Floats, denominator: Floats, starts: npt.NDArray[np.intp]) -> Floats:
    """Return the half width of the jackknife-t interval (see `clusters`) of the ratio in each group of clusters.

    Args:
        numerator: float64 [G], sums of every cluster, those of a group side by side.
        denominator: float64 [G], their counts.
        starts: [K], where the groups start.

    Two groups of clusters, the first that of `jackknife.jackknife_ratio`, the second a single cluster:

    >>> _half_widths(np.array([1, 2, 6, 5.0]), np.array([1, 1, 2, 1.0]), np.array([0, 3])).round(6).tolist()
    [2.985562, nan]
    """
    clusters = np.diff([*starts, len(numerator)])
    half: Floats = t_quantile(clusters) * grouped_errors(numerator, denominator, starts)
    return half
