"""Estimates a metric's value, or its change from the baseline on the same tokens, with a confidence interval.

Smooth metrics have the delete-one jackknife-t interval over documents (see `stats.jackknife`). A change is paired: each
document is measured under both models, so that differences in how hard documents are cancel. The other metrics:

ece: the bootstrap intervals of `analysis.stats.resampling`; for a change, the interval of the difference.
quantile: Woodruff's interval (1952, JASA 47, 635-646): the quantiles at q ± t · s, with s the jackknife standard error
    of the share of tokens at or below the estimate. The interval of a change follows from the half widths of both
    models' intervals (Francisco & Fuller 1991, Annals of Statistics 19, 454-469) and the correlation of their shares
    over documents, by the delta method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.calibration.bins import bin_sums, equal_width_edges
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import error_of_replicates, t_quantile
from lossprobe.analysis.stats.power import tokens_to_decide
from lossprobe.analysis.stats.resampling import Draws, Floats, at_most, bootstrap, bootstrap_error
from lossprobe.audit.checks.metrics import TOKEN_LOSS, Scale
from lossprobe.audit.checks.pairing import AuditedRun


@dataclass(frozen=True)
class ScaledEstimate:
    """A number with its interval, on a `Scale`.

    Attributes:
        scale: how the statistic is shown.
        value: the statistic; NaN where it is undefined.
        half: distance of the interval's ends below and above the statistic; NaN without an interval.
        quantile: half width of the interval in standard errors.
        tokens, clusters: numbers of tokens and of clusters (documents or blocks) that were measured.
    """

    scale: Scale
    value: float
    half: tuple[float, float]
    quantile: float
    tokens: int
    clusters: int

    @property
    def shown(self) -> float | None:
        """Return the number in the unit of the limit; None where it is undefined."""
        return None if math.isnan(self.value) else self.scale.shown(self.value)

    @property
    def interval(self) -> Interval:
        """Return the interval in the unit of the limit; of an infinite number only that number."""
        if math.isinf(self.value):
            return Interval(self.scale.shown(self.value), self.scale.shown(self.value))
        if math.isnan(self.value) or any(math.isnan(half) for half in self.half):
            return NO_INTERVAL
        low, high = (self.scale.shown(end) for end in (self.value - self.half[0], self.value + self.half[1]))
        return Interval(low, high).within(*self.scale.range)

    def further_tokens(self, limit: float, confidence: float) -> int | None:
        """Return about how many more tokens would decide if the estimate holds; None where no number would.

        Args:
            limit: the limit, in the unit that is shown.
            confidence: confidence level of the interval.
        """
        distance = self.value - self.scale.limit(limit)
        error = self.half[0 if distance > 0 else 1] / self.quantile
        if not (math.isfinite(distance) and math.isfinite(error)):
            return None
        needed = tokens_to_decide(distance, error, self.tokens, self.clusters, confidence)
        return None if needed is None else max(1, needed - self.tokens)


def smooth_estimate(sums: Floats, scale: Scale, quantile: float, least: float = 0.0) -> ScaledEstimate:
    """Return a smooth metric's estimate from its sums.

    Args:
        sums: float64 [G, 1 or 2, terms + 1], from `AuditedRun.sums`.
        scale: its statistic takes the sums of one side, [..., terms], or of baseline and model, [..., 2, terms].
        quantile: half width of the interval in standard errors.
        least: half width of a number that does not vary over documents, from `unvaried_half` for a share of tokens.
    """
    of_sums, clusters, tokens = _sides(sums), len(sums), int(sums[:, -1, -1].sum())
    value = float(scale.statistic(of_sums.sum(axis=0))) if clusters else math.nan
    error = math.nan
    if clusters > 1 and math.isfinite(value):
        error = error_of_replicates(jackknife(sums, scale))
        if error == 0.0:
            error = least / quantile
    return ScaledEstimate(scale, value, (quantile * error,) * 2, quantile, tokens, clusters)


def unvaried_half(tokens: float, confidence: float) -> float:
    """Return the half width of a share that is 0 or 1 in every document, where the standard error is 0.

    It is that of as many independent tokens, 1 − ((1 − confidence) / 2)^(1 / tokens) (Clopper & Pearson 1934):

    >>> round(unvaried_half(1000, 0.95), 6)
    0.003682
    """
    return -math.expm1(math.log((1.0 - confidence) / 2) / tokens)


def jackknife(sums: Floats, scale: Scale) -> Floats:
    """Return a smooth metric with each document left out in turn, float64 [G]; arguments as in `smooth_estimate`."""
    of_sums = _sides(sums)
    return scale.statistic(of_sums.sum(axis=0) - of_sums)


def _sides(sums: Floats) -> Floats:
    """Return the sums that a scale's statistic takes: [G, terms] of one side, [G, 2, terms] of both."""
    return sums[..., :-1] if sums.shape[1] == 2 else sums[:, 0, :-1]


def ece_estimate(scored: AuditedRun, rows: Sequence[str], scale: Scale, confidence: float) -> ScaledEstimate:
    """Return the estimate of an expected calibration error (15 bins of equal width), or of its change.

    Args:
        scored: the run.
        rows: from `AuditedRun.rows`, of the model, or of baseline and model.
        scale: its statistic takes the sums of one side, [..., bins, 5], or of both, [..., 2, bins, 5].
        confidence: confidence level of the interval.
    """
    clusters = at_most(scored.clusters)
    parts = [bin_sums(scored.run, clusters, equal_width_edges(), row, "compared") for row in rows]
    sums = parts[-1]
    counts = sums[..., 0].sum(axis=-1)
    count, quantile = len(counts), float(t_quantile(len(counts), confidence))
    if not count:
        return _nothing(scale)
    if len(rows) == 2:
        found = bootstrap(np.stack(parts, axis=1), scale.statistic, -1.0, 1.0, confidence=confidence)
    else:
        draws = Draws(confidence=confidence)
        found = bootstrap_error(sums, sums[..., [0, 1, 1, 3, 3]], counts, scale.statistic, 1.0, draws)
    half = (math.nan, math.nan)
    low, high = found.interval
    if low is not None and high is not None:  # a bias-corrected interval may not contain the estimate
        half = (max(0.0, found.value - low), max(0.0, high - found.value))
    return ScaledEstimate(scale, found.value, half, quantile, int(counts.sum()), count)


def quantile_estimate(
    scored: AuditedRun, rows: Sequence[str], share: float, scale: Scale, confidence: float
) -> ScaledEstimate:
    """Return the estimate of a quantile of the losses, interpolated as by numpy.quantile, or of its change.

    Args:
        scored: the run.
        rows: from `AuditedRun.rows`, of the model, or of baseline and model.
        share: probability of the quantile, such as 0.99.
        scale: how it is shown.
        confidence: confidence level of the interval.
    """
    sides = [_quantile_side(scored, row, share) for row in rows]
    counts, clusters = sides[-1].counts, len(sides[-1].counts)
    if not clusters:
        return _nothing(scale)
    quantile = float(t_quantile(clusters, confidence))
    halves = [side.half(quantile) for side in sides]
    half, value = halves[-1], sides[-1].value
    if len(sides) == 2:
        value -= sides[0].value
        old, new = ((low + high) / 2 for low, high in halves)
        # 2 (1 - correlation)
        apart = np.square(_standardized(sides[1].replicates) - _standardized(sides[0].replicates)).mean()
        variance = (new - old) ** 2 + new * old * float(apart)  # exactly 0 for the same model
        half = (math.sqrt(variance),) * 2 if math.isfinite(variance) else (old + new,) * 2
    return ScaledEstimate(scale, value, half, quantile, int(counts.sum()), clusters)


@dataclass(frozen=True)
class _QuantileSide:
    """A quantile of the losses under one model.

    Attributes:
        value: the quantile.
        share: its probability.
        replicates: float64 [G], share of tokens at or below the quantile, with each cluster left out in turn.
        counts: float64 [G], tokens of each cluster.
        at: returns the quantile at another probability.
    """

    value: float
    share: float
    replicates: Floats
    counts: Floats
    at: Callable[[float], float]

    def half(self, quantile: float) -> tuple[float, float]:
        """Return the distances to the quantiles at share ± quantile · error, below and above.

        A distance is infinite where that probability is below 0 or above 1; both are NaN without a standard error.
        """
        error = error_of_replicates(self.replicates)
        if not math.isfinite(quantile * error):
            return math.nan, math.nan
        low, high = self.share - quantile * error, self.share + quantile * error
        return (
            self.value - self.at(low) if low >= 0.0 else math.inf,
            self.at(high) - self.value if high <= 1.0 else math.inf,
        )


def _quantile_side(scored: AuditedRun, rows: str, share: float) -> _QuantileSide:
    def at(chosen: float) -> float:
        found = scored.run.scalar(f"SELECT quantile_cont({TOKEN_LOSS}, {chosen!r}) FROM {rows} WHERE compared")
        return math.nan if found is None else float(found)

    value = at(share)
    sums = (
        scored.run.query(f"""
        SELECT {scored.clusters.sql} AS cluster,
            count(*) FILTER ({TOKEN_LOSS} <= {value!r}::DOUBLE) AS below, count(*) AS n
        FROM {rows} WHERE compared GROUP BY cluster ORDER BY cluster""")
        if not math.isnan(value)
        else None
    )
    below, counts = (np.zeros(0),) * 2 if sums is None else sums[["below", "n"]].to_numpy(float).T
    rest = counts.sum() - counts
    replicates = np.divide(below.sum() - below, rest, out=np.full(len(rest), np.nan), where=rest > 0)
    return _QuantileSide(value, share, replicates, counts, at)


def _standardized(replicates: Floats) -> Floats:
    """Return replicates scaled to mean 0 and standard deviation 1, or all 0 if they do not vary."""
    centred, spread = replicates - replicates.mean(), float(replicates.std())
    return np.asarray(centred / spread if spread else centred)


def _nothing(scale: Scale) -> ScaledEstimate:
    return ScaledEstimate(scale, math.nan, (math.nan, math.nan), math.nan, 0, 0)
