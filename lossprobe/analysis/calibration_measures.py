"""The numbers of a run's calibration, each with its interval and what it would be under perfect calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import pandas as pd

from lossprobe.analysis.calibration_bins import (
    bin_sums,
    bin_table,
    debiased_squared_error,
    equal_mass_edges,
    equal_width_edges,
    expected_calibration_error,
    expected_noise,
    maximum_calibration_error,
    maximum_noise,
    reliability,
    resolution,
    top1_brier,
    uncertainty,
    within_bin,
)
from lossprobe.analysis.clusters import Clusters, Interval, jackknife_ratio
from lossprobe.analysis.outcomes import outcome_sums
from lossprobe.analysis.resampling import Floats, Measure, Statistic, bootstrap
from lossprobe.analysis.smooth_ece import residual_sums, smooth_ece, smooth_noise
from lossprobe.analysis.vocabulary_calibration import (
    vocabulary_error,
    vocabulary_noise,
    vocabulary_sums,
    vocabulary_table,
)
from lossprobe.run.reader import Run

# Every measure with its unit, in the order in which they are shown: the signed gap before any error without a sign.
MEASURES = {
    "nll_nats": "nats per token",
    "nll_minus_entropy_nats": "nats per token",
    "accuracy": "share of tokens",
    "top5_accuracy": "share of tokens",
    "mean_confidence": "probability",
    "confidence_gap": "probability",
    "ece": "probability",
    "ece_equal_mass": "probability",
    "squared_error_debiased": "probability squared",
    "mce": "probability",
    "smooth_ece": "probability",
    "vocabulary_error": "probability",
    "brier": "squared error",
    "top1_brier": "squared error",
    "reliability": "squared error",
    "resolution": "squared error",
    "uncertainty": "squared error",
    "within_bin": "squared error",
}

ROUNDING_VARIANCE = 1e-10  # per token; a float32 loss or confidence is off by up to 1e-6, a tenth of its root


@dataclass(frozen=True)
class Binned:
    """What the calibration errors are made of, per cluster.

    Attributes:
        equal_width, equal_mass: float64 [G, bins, 5]; see `calibration_bins.bin_sums`.
        width_edges, mass_edges: inner edges of the bins.
        vocabulary: float64 [G, 121, 3]; see `vocabulary_calibration.vocabulary_sums`.
        residuals: float64 [G, cells, 3]; see `smooth_ece.residual_sums`.
    """

    equal_width: Floats
    equal_mass: Floats
    width_edges: Floats
    mass_edges: Floats
    vocabulary: Floats
    residuals: Floats

    @staticmethod
    def read(run: Run, clusters: Clusters) -> Binned:
        """Return the sums of a run."""
        width, mass = equal_width_edges(), equal_mass_edges(run)
        return Binned(
            equal_width=bin_sums(run, clusters, width),
            equal_mass=bin_sums(run, clusters, mass),
            width_edges=width,
            mass_edges=mass,
            vocabulary=vocabulary_sums(run, clusters),
            residuals=residual_sums(run, clusters),
        )

    def table(self) -> pd.DataFrame:
        """Return all bins in one table; see `calibration.ModelCalibration`."""
        names = {"mean_confidence": "mean_probability", "accuracy": "hit_rate"}
        parts = (
            ("equal width", bin_table(self.equal_width, self.width_edges).rename(columns=names)),
            ("equal mass", bin_table(self.equal_mass, self.mass_edges).rename(columns=names)),
            ("log10 p", _as_gaps(vocabulary_table(self.vocabulary))),
        )
        return pd.concat([part.assign(binning=name) for name, part in parts], ignore_index=True)[
            ["binning", "bin", "low", "high", "count", "mean_probability", "hit_rate", "gap", "gap_low", "gap_high"]
        ]


def _as_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the bins of all vocabulary entries with the columns of the others: mean p, hit rate and their gap."""
    pairs = table["pairs"].where(table["pairs"] > 0)
    mean, rate = table["sum_p"] / pairs, table["hits"] / pairs
    return pd.DataFrame(
        {
            "bin": table["bin"],
            "low": table["p_low"],
            "high": table["p_high"],
            "count": table["pairs"],
            "mean_probability": mean,
            "hit_rate": rate,
            "gap": mean - rate,
            "gap_low": mean * (1 - table["ratio_high"]),
            "gap_high": mean * (1 - table["ratio_low"]),
        }
    )


def measure_all(run: Run, clusters: Clusters, binned: Binned) -> dict[str, Measure]:
    """Return every measure of `MEASURES`.

    Means have delete-one jackknife-t intervals, everything else bootstrap intervals; both over clusters.
    """
    found = mean_measures(outcome_sums(run, clusters)) | binned_measures(binned)
    return {name: found[name] for name in MEASURES}


def mean_measures(sums: pd.DataFrame) -> dict[str, Measure]:
    """Return the measures that are means over tokens, from the sums per cluster of `outcomes.outcome_sums`.

    The z of the gap and of NLL − entropy need no clusters: under calibration x − o and n − H are martingale
    differences, whatever the text's own dependence, with variances x (1 − x) and the varentropy.
    """
    gap, excess = sums["confidence"] - sums["correct"], sums["nats"] - sums["entropy"]
    total = sums.sum()
    tokens = total["tokens"]
    z_excess, z_gap = _z(excess, total["varentropy"], tokens), _z(gap, total["spread"], tokens)
    return {
        "nll_nats": _mean(sums["nats"], sums["nats2"], sums["tokens"]),
        "nll_minus_entropy_nats": _mean(excess, sums["excess2"], sums["tokens"], z_excess),
        "accuracy": _mean(sums["correct"], sums["correct"], sums["tokens"]),
        "top5_accuracy": _mean(sums["top5"], sums["top5"], sums["tokens"]),
        "mean_confidence": _mean(sums["confidence"], sums["confidence2"], sums["tokens"]),
        "confidence_gap": _mean(gap, sums["gap2"], sums["tokens"], z_gap),
        "brier": _mean(sums["brier"], sums["brier2"], sums["tokens"]),
    }


def binned_measures(binned: Binned) -> dict[str, Measure]:
    """Return the calibration errors, and the parts of the first choice's Brier score."""
    width, mass, vocabulary = (part.sum(axis=0) for part in (binned.equal_width, binned.equal_mass, binned.vocabulary))
    of_width = partial(_resampled, binned.equal_width)
    return {
        "ece": of_width(expected_calibration_error, (0.0, 1.0), expected_noise(width)),
        "ece_equal_mass": _resampled(binned.equal_mass, expected_calibration_error, (0.0, 1.0), expected_noise(mass)),
        "squared_error_debiased": of_width(debiased_squared_error, (-1.0, 1.0)),
        "mce": of_width(maximum_calibration_error, (0.0, 1.0), maximum_noise(width)),
        "smooth_ece": _resampled(binned.residuals, smooth_ece, (0.0, 1.0), smooth_noise(binned.residuals.sum(axis=0))),
        "vocabulary_error": _resampled(binned.vocabulary, vocabulary_error, (0.0, 2.0), vocabulary_noise(vocabulary)),
        "top1_brier": of_width(top1_brier, (0.0, 1.0)),
        "reliability": of_width(reliability, (0.0, 1.0)),
        "resolution": of_width(resolution, (0.0, 1.0)),
        "uncertainty": of_width(uncertainty, (0.0, 1.0)),
        "within_bin": of_width(within_bin, (-1.0, 1.0)),
    }


def _mean(values: pd.Series, squares: pd.Series, tokens: pd.Series, z: float | None = None) -> Measure:
    """Return a mean with its interval, and its variance over that of as many independent tokens."""
    interval = jackknife_ratio(values, tokens)
    count = float(tokens.sum())
    independent = (float(squares.sum()) / count - interval.estimate**2) / count
    effect = None
    if len(values) > 1 and independent > 0:
        residuals = values - tokens * interval.estimate
        groups = len(values)
        effect = groups / (groups - 1) * float((residuals**2).sum()) / count**2 / independent
    return Measure(interval.estimate, interval.low, interval.high, z=z, design_effect=effect)


def _z(differences: pd.Series, variance: float, tokens: float) -> float | None:
    """Return Σ differences in standard errors; None where predictions are so certain that rounding would decide."""
    return float(differences.sum()) / math.sqrt(variance) if variance > ROUNDING_VARIANCE * tokens else None


def _resampled(
    sums: Floats, statistic: Statistic, limits: tuple[float, float], noise_floor: float | None = None
) -> Measure:
    interval = bootstrap(sums, statistic, *limits)
    if math.isnan(interval.estimate):
        return Measure(None)
    if interval.low is not None and math.isnan(interval.low):  # some resamples have no bin that is large enough
        interval = Interval(interval.estimate, None, None)
    return Measure(interval.estimate, interval.low, interval.high, noise_floor)
