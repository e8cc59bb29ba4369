"""The numbers of a run's calibration, each with its interval and what it would be under perfect calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.bins import (
    MCE_LEAST,
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
from lossprobe.analysis.calibration.smooth_ece import residual_sums, smooth_ece, smooth_noise
from lossprobe.analysis.calibration.vocabulary import (
    vocabulary_error,
    vocabulary_noise,
    vocabulary_sums,
    vocabulary_table,
)
from lossprobe.analysis.rows.outcomes import standard_errors
from lossprobe.analysis.stats.interval import Estimate
from lossprobe.analysis.stats.jackknife import Clusters, jackknife_ratio
from lossprobe.analysis.stats.resampling import (
    CalibrationMeasure,
    Draws,
    Floats,
    Statistic,
    bootstrap,
    bootstrap_error,
)
from lossprobe.run.reader import Run

SMOOTH_RESAMPLES = 100  # each costs some twenty cosine transforms
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

LIMITS = {  # what the means of shares can be; a t interval of few documents knows no limits
    "accuracy": (0.0, 1.0),
    "top5_accuracy": (0.0, 1.0),
    "mean_confidence": (0.0, 1.0),
    "confidence_gap": (-1.0, 1.0),
    "brier": (0.0, 2.0),
}


@dataclass(frozen=True)
class ErrorSums:
    """The sums per cluster from which the calibration errors are computed.

    Attributes:
        equal_width, equal_mass: float64 [G, bins, 5]; see `bins.bin_sums`.
        width_edges, mass_edges: inner edges of the bins.
        vocabulary: float64 [G, 121, 3]; see `vocabulary.vocabulary_sums`.
        residuals: float64 [G, cells, 3]; see `smooth_ece.residual_sums`.
    """

    equal_width: Floats
    equal_mass: Floats
    width_edges: Floats
    mass_edges: Floats
    vocabulary: Floats
    residuals: Floats

    @staticmethod
    def read(run: Run, clusters: Clusters) -> ErrorSums:
        """Return the sums of a run."""
        width, mass = equal_width_edges(), equal_mass_edges(run)
        return ErrorSums(
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


def measure_all(outcomes: pd.DataFrame, binned: ErrorSums) -> dict[str, CalibrationMeasure]:
    """Return every measure of `MEASURES`.

    Means have delete-one jackknife-t intervals, everything else bootstrap intervals; both over clusters.

    Args:
        outcomes: what `outcomes.outcome_sums` returns for the clusters.
        binned: the sums of the same clusters by bin.
    """
    copies = float(outcomes["copies"].sum() / outcomes["tokens"].sum())
    found = mean_measures(outcomes) | binned_measures(binned, copies)
    return {name: found[name] for name in MEASURES}


def mean_measures(sums: pd.DataFrame) -> dict[str, CalibrationMeasure]:
    """Return the measures that are means over tokens, from the sums per cluster of `outcomes.outcome_sums`.

    The z of the gap and of NLL − entropy need no clusters: under calibration x − o and n − H are martingale
    differences, whatever the text's own dependence, with variances x (1 − x) and the varentropy. The sums of these hold
    each as often as there are copies of the text: copies deviate together.
    """
    gap, excess = sums["confidence"] - sums["correct"], sums["nats"] - sums["entropy"]
    total = sums.sum()
    deviations, variances = np.array([excess.sum(), gap.sum()]), total[["varentropy", "spread"]].to_numpy(float)
    z = standard_errors(deviations, variances, np.full(2, total["tokens"])).tolist()
    z_excess, z_gap = (None if math.isnan(value) else value for value in z)
    found = {
        "nll_nats": _mean(sums["nats"], sums["nats2"], sums["tokens"]),
        "nll_minus_entropy_nats": _mean(excess, sums["excess2"], sums["tokens"], z_excess),
        "accuracy": _mean(sums["correct"], sums["correct"], sums["tokens"]),
        "top5_accuracy": _mean(sums["top5"], sums["top5"], sums["tokens"]),
        "mean_confidence": _mean(sums["confidence"], sums["confidence2"], sums["tokens"]),
        "confidence_gap": _mean(gap, sums["gap2"], sums["tokens"], z_gap),
        "brier": _mean(sums["brier"], sums["brier2"], sums["tokens"]),
    }
    cut = {name: found[name].interval.within(*limits) for name, limits in LIMITS.items()}
    return found | {name: replace(found[name], interval=interval) for name, interval in cut.items()}


def binned_measures(binned: ErrorSums, copies: float = 1.0) -> dict[str, CalibrationMeasure]:
    """Return the calibration errors, and the parts of the first choice's Brier score.

    Args:
        binned: the sums.
        copies: how often a token's text is there on average; noise is that of as many fewer tokens.
    """
    parts = (binned.equal_width, binned.equal_mass, binned.vocabulary, binned.residuals)
    width, mass, vocabulary, residuals = (part.sum(axis=0) / copies for part in parts)
    of_width = partial(_resampled, binned.equal_width)
    squared = _width_error(binned.equal_width, _root_reliability)
    return {
        "ece": _measure(_width_error(binned.equal_width, expected_calibration_error), expected_noise(width)),
        "ece_equal_mass": _measure(_width_error(binned.equal_mass, expected_calibration_error), expected_noise(mass)),
        "squared_error_debiased": _squared(debiased_squared_error(width), squared),
        "mce": _measure(_largest(binned.equal_width, copies), maximum_noise(width)),
        "smooth_ece": _measure(_smooth(binned.residuals), smooth_noise(residuals)),
        "vocabulary_error": _measure(_vocabulary(binned.vocabulary), vocabulary_noise(vocabulary)),
        "top1_brier": of_width(top1_brier, (0.0, 1.0)),
        "reliability": _squared(reliability(width), squared),
        "resolution": of_width(resolution, (0.0, 1.0)),
        "uncertainty": of_width(uncertainty, (0.0, 1.0)),
        "within_bin": of_width(within_bin, (-1.0, 1.0)),
    }


def _width_error(sums: Floats, statistic: Statistic) -> Estimate:
    """Return an error of sums [G, B, 5] with its interval; under perfect calibration Σ o of a bin is Σ x."""
    return bootstrap_error(sums, sums[..., [0, 1, 1, 3, 3]], sums[..., 0].sum(axis=1), statistic, 1.0)


def _largest(sums: Floats, copies: float) -> Estimate:
    """Return the MCE with its interval, over the bins that are large enough in the total without copies."""
    used = sums[..., 0].sum(axis=0) / copies >= MCE_LEAST
    if not used.any():
        return Estimate(math.nan)
    largest = partial(maximum_calibration_error, least=1)
    return _width_error(sums, lambda drawn: largest(drawn[..., used, :]))


def _smooth(sums: Floats) -> Estimate:
    calibrated = sums * np.array([1.0, 0.0, 1.0])
    return bootstrap_error(sums, calibrated, sums[..., 0].sum(axis=1), smooth_ece, 1.0, Draws(SMOOTH_RESAMPLES))


def _vocabulary(sums: Floats) -> Estimate:
    return bootstrap_error(sums, sums[..., [0, 1, 1]], sums[..., 2].sum(axis=1), vocabulary_error, 2.0)


def _root_reliability(sums: Floats) -> Floats:
    """Return the root of `reliability`, whose noise is more symmetric."""
    return np.sqrt(reliability(sums))


def _squared(value: Floats, root: Estimate) -> CalibrationMeasure:
    """Return a squared error, with the squared ends of its root's interval."""
    return _measure(Estimate(float(value), root.interval.map(lambda end: end**2)))


def _measure(found: Estimate, noise_floor: float | None = None) -> CalibrationMeasure:
    if math.isnan(found.value):
        return CalibrationMeasure(None)
    return CalibrationMeasure(found.value, found.interval, noise_floor)


def _mean(values: pd.Series, squares: pd.Series, tokens: pd.Series, z: float | None = None) -> CalibrationMeasure:
    """Return a mean with its interval, and its variance over that of as many independent tokens."""
    mean = jackknife_ratio(values, tokens)
    count = float(tokens.sum())
    independent = (float(squares.sum()) / count - mean.value**2) / count
    effect = None
    if len(values) > 1 and independent > 0:
        residuals = values - tokens * mean.value
        groups = len(values)
        effect = groups / (groups - 1) * float((residuals**2).sum()) / count**2 / independent
    return CalibrationMeasure(mean.value, mean.interval, z=z, design_effect=effect)


def _resampled(sums: Floats, statistic: Statistic, limits: tuple[float, float]) -> CalibrationMeasure:
    return _measure(bootstrap(sums, statistic, *limits))
