"""Mean loss as a function of temperature, its minimum, and the interval of the minimum.

The mean loss of softmax(z / T) is convex in β = 1/T (Guo et al. 2017 fit T to it). Its slope at β = 1 is
mean(loss) − mean(entropy), its curvature mean(varentropy). The minimum is found by halving a bracket on log β, which
needs no step size and cannot leave the temperatures that the run stores.

The ladder is kept for a sample of the tokens, loss and entropy for all of them. So the sample's curve is given the
value and the slope of all tokens at β = 1. That adds a linear function of β, and the curve stays convex:

    mean loss(β) ≈ sample's mean loss(β) + Δ mean(loss) + (β − 1) Δ mean(loss − entropy),    Δ = all − sample

The interval of T is the jackknife-t interval of log T over clusters: every replicate minimises a curve of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from lossprobe.analysis.calibration.ladder import (
    FEATURES,
    LOG_BETA,
    ROUNDING,
    Integers,
    LadderRows,
    sampled_rows,
    weights,
)
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.outcomes import outcome_sums
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import Clusters, around
from lossprobe.analysis.stats.resampling import Floats, at_most
from lossprobe.run.reader import Run

MAX_CLUSTERS = 200
COUNT = FEATURES + 3  # where a cluster's sums hold its number of sampled rows
ENDS = (LOG_BETA[0], LOG_BETA[-1])
HALVINGS = 48  # of a bracket 2.8 wide: to 1e-14
FLAT_NATS = 1e-6  # the stored sums are no more exact
LEVEL = 1e-9  # a slope that is no more than rounding


@dataclass(frozen=True)
class Sample:
    """The sampled rows to which temperatures are fitted; read once, fitted several times.

    Attributes:
        rows: the S sampled rows.
        clusters: what intervals resample; G of them hold scored tokens.
        group: int64 [S], each row's place among the G.
        sums: float64 [G, 26], sums of each cluster; see `Curves.of`.
    """

    rows: LadderRows
    clusters: Clusters
    group: Integers
    sums: Floats

    def of(self, values: Floats) -> Floats:
        """Return float64 [G], the sum of one number per sampled row over each cluster."""
        return np.bincount(self.group, values, len(self.sums)).astype(np.float64)


@dataclass(frozen=True)
class Curves:
    """R curves of mean loss: `spread` at log β, plus `linear` β, plus `constant`.

    Attributes:
        spread: float64 [R, 19]; see `LadderRows`.
        linear, constant: float64 [R], in nats.
    """

    spread: Floats
    linear: Floats
    constant: Floats

    @classmethod
    def of(cls, sums: Floats) -> Curves:
        """Return the curves of sums over a cluster, or over several.

        Args:
            sums: float64 [R, 26]. Over sampled rows: 19 of the spread, distance of the token below the top logit,
                loss, entropy, count. Over all scored tokens: loss, entropy, count.
        """
        spread, rest = np.split(sums[:, :COUNT] / sums[:, [COUNT]], [FEATURES], axis=1)
        below_top, loss, entropy = rest.T
        all_loss, all_entropy = sums[:, -3:-1].T / sums[:, -1]
        slope = (all_loss - all_entropy) - (loss - entropy)
        return cls(spread, below_top + slope, all_loss - loss - slope)

    def at(self, log_beta: npt.ArrayLike) -> Floats:
        """Return float64 [R, P], each curve at P places."""
        beta = np.exp(np.asarray(log_beta, np.float64))
        return self.spread @ weights(log_beta).T + beta * self.linear[:, None] + self.constant[:, None]

    def slope(self, log_beta: Floats) -> Floats:
        """Return float64 [R], the derivative by β of each curve at a place of its own.

        The spread never rises with β. Where a spline of it does, beside a steep fall, it is held level.
        """
        by_log_beta = (weights(log_beta, 1) * self.spread).sum(axis=1)
        return np.asarray(np.minimum(by_log_beta, 0.0) * np.exp(-log_beta) + self.linear)

    def minima(self) -> Floats:
        """Return float64 [R], log β of each minimum: one of `ENDS` where a curve falls to there, 0 where it is flat."""
        low, high = (np.full(len(self.linear), end) for end in ENDS)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            rising = self.slope(middle) > LEVEL
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        found = (low + high) / 2
        for end in ENDS:
            found = np.where(np.abs(found - end) < ROUNDING, end, found)
        return np.where(self.flat(), 0.0, found)

    def flat(self) -> npt.NDArray[np.bool_]:
        """Return bool [R], whether a curve is the same at every stored temperature, to the exactness of the sums."""
        return np.asarray(np.ptp(self.at(LOG_BETA), axis=1) <= FLAT_NATS)


@dataclass(frozen=True)
class Fit:
    """The temperatures fitted to a sample.

    Attributes:
        curve: mean loss of all tokens.
        log_beta: −log T at its minimum.
        temperature_interval: of `temperature`.
        halves: float64 [2], −log T of each half; None where one of them has no sampled row.
    """

    curve: Curves
    log_beta: float
    temperature_interval: Interval
    halves: Floats | None

    @property
    def temperature(self) -> float:
        """T at the minimum."""
        return math.exp(-self.log_beta)

    @property
    def all(self) -> Floats:
        """Every fitted −log T."""
        return np.array([self.log_beta]) if self.halves is None else np.append(self.halves, self.log_beta)

    def of_rows(self, sample: Sample) -> Floats:
        """Return float64 [S], −log T of each row: what was fitted to the other half, or without halves to all."""
        if self.halves is None:
            return np.full(len(sample.rows), self.log_beta)
        return np.asarray(self.halves[1 - sample.group % 2])


def sample_clusters(run: Run) -> Clusters:
    """Return what intervals of temperatures resample: the clusters of a run, merged into at most 200 groups."""
    return at_most(find_clusters(run), MAX_CLUSTERS)


def read_sample(run: Run, sums: pd.DataFrame | None = None) -> Sample:
    """Return what the temperatures of a run are fitted to.

    Args:
        run: the run.
        sums: what `outcomes.outcome_sums` returns for `sample_clusters`, where it was read already.

    Raises:
        OutputError: a stored number is NaN or infinite, which scoring never writes.
    """
    clusters = sample_clusters(run)
    full = outcome_sums(run, clusters) if sums is None else sums
    rows = sampled_rows(run, clusters)
    group = np.searchsorted(full["cluster"].to_numpy(np.int64), rows.cluster)
    per_row = np.column_stack([rows.spread, rows.below_top_nats, rows.loss_nats, rows.entropy_nats])
    sampled = np.zeros((len(full), COUNT))
    np.add.at(sampled, group, per_row)
    counts = np.bincount(group, minlength=len(full))
    return Sample(rows, clusters, group, np.column_stack([sampled, counts, full[["nats", "entropy", "tokens"]]]))


def fit_sample(sample: Sample) -> Fit | None:
    """Return the fits to a sample; None where it has no row."""
    if not len(sample.rows):
        return None
    curve = Curves.of(sample.sums.sum(axis=0, keepdims=True))
    best = float(curve.minima()[0])
    halves = np.stack([sample.sums[start::2].sum(axis=0) for start in (0, 1)])
    both = bool((halves[:, COUNT] > 0).all())
    return Fit(curve, best, _interval(sample.sums, best), Curves.of(halves).minima() if both else None)


def _interval(sums: Floats, best: float) -> Interval:
    """Return the interval of T; None where a replicate has no sampled row, or no minimum within the range."""
    without = sums.sum(axis=0) - sums
    if (without[:, COUNT] <= 0).any():  # also where there is one cluster only
        return NO_INTERVAL
    curves = Curves.of(without)
    replicates = curves.minima()
    if curves.flat().any() or np.isin(replicates, ENDS).any():
        return NO_INTERVAL
    return around(-best, -replicates).interval.map(math.exp)
