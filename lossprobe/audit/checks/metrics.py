"""The metrics that a check can limit, one record each.

All but `ece` and `quantile` are smooth functions of sums over tokens, so their intervals need only sums per document.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lossprobe.analysis.calibration.bins import expected_calibration_error
from lossprobe.analysis.positions import LATE, score_ranges
from lossprobe.analysis.rows.outcomes import BRIER, CORRECT, TOP_PROB
from lossprobe.analysis.stats.resampling import Floats, Statistic
from lossprobe.audit.settings import Check
from lossprobe.units import NATS_PER_BIT, perplexity

TOKEN_LOSS = "loss_nats::DOUBLE"
BYTES = "(byte_stop - byte_start)"
Link = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: how it is computed from sums over tokens, and which limits it can have.

    Attributes:
        unit: unit in which the metric is shown.
        range: its least and largest possible value; limits outside are refused.
        in_percent: whether its change may be limited in percent. False for metrics that are often 0 or negative.
        parameter: key of a check that this metric requires and that no other metric takes; None for none.
        terms: SQL expressions over `tokens` that are summed. {nats} stands for the parameter of the check, {early} and
            {late} for conditions on the early and late tokens of `positions`.
        columns: columns of the token table that it needs from the model, and from a baseline.
        statistic: maps sums [..., terms] to [...].
        per_nat: whether the metric is e to the power of the statistic. Its interval is then e to the power of the
            statistic's interval, and its change is a ratio, which can be limited in percent only.
        per_byte: whether it needs the bytes of each token; a text without them is refused.
        smooth: whether it is a smooth function of sums; for the others see `estimates`.
        of_scored: whether only scored tokens count.
        share: whether it is a share of tokens that may be 0 or 1 in every document; see `estimates.unvaried_half`.
        both: indices of terms that must be positive in a document (or block); other documents are left out.
        partial: whether it can be measured on a part of the text, as with `stop_early`.
        of_pair: whether it says how far the model is from the reference: its terms read the rows of a `run.pair`. It is
            a change itself, so that only its value can be limited.
        worst: largest change for the worse that a document can make to the statistic of its own tokens. Losses have no
            upper bound; 10 nats is the loss of guessing among 22,000 tokens, 8 bits that of guessing a byte.
    """

    unit: str
    range: tuple[float, float]
    in_percent: bool = False
    parameter: str | None = None
    terms: tuple[str, ...] = ()
    columns: tuple[str, ...]
    statistic: Statistic
    per_nat: bool = False
    per_byte: bool = False
    smooth: bool = True
    of_scored: bool = True
    share: bool = False
    both: tuple[int, ...] = ()
    partial: bool = True
    of_pair: bool = False
    worst: float = 1.0


@dataclass(frozen=True)
class Scale:
    """The statistic of which an interval is made, and how it maps to the unit of the limit.

    Attributes:
        statistic: maps sums [..., terms], or [..., 2, terms] of baseline and model, to [...].
        shown: increasing function from the statistic to the unit of the limit.
        limit: the inverse of `shown`.
        unit: unit of the limit.
        range: the least and the largest number that there can be, in this unit; an interval is cut to it.
    """

    statistic: Statistic
    shown: Link
    limit: Link
    unit: str
    range: tuple[float, float] = (-math.inf, math.inf)


def ratio(sums: Floats) -> Floats:
    """Return the first of two sums divided by the second, or NaN where the second is 0.

    `sums` is float64 [..., 2]; the result is float64 [...].

    >>> ratio(np.array([[6.0, 4.0], [1.0, 0.0]])).tolist()
    [1.5, nan]
    """
    numerator, denominator = np.moveaxis(sums, -1, 0)
    quotients: Floats = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotients, where=denominator > 0)
    return quotients


def mean_divergence(sums: Floats) -> Floats:
    """Return the mean of divergences: infinite where one is.

    Args:
        sums: float64 [..., 3]: the sum of the finite divergences, the number of tokens, and that of infinite ones.

    >>> mean_divergence(np.array([[6.0, 4.0, 0.0], [6.0, 4.0, 1.0]])).tolist()
    [1.5, inf]
    """
    return np.where(sums[..., 2] > 0, math.inf, ratio(sums[..., :2]))


def metric_of(check: Check, longest: int) -> Metric:
    """Return the metric of a check with its parameters put into the SQL.

    Args:
        check: the check.
        longest: largest context of a token in the run; it decides which tokens are early and late.
    """
    metric = METRICS[check.metric]
    ranges = score_ranges(longest) if longest > LATE else ()
    early, late = [f"context BETWEEN {first} AND {last}" for first, last in ranges] or ["FALSE", "FALSE"]
    values = {"nats": repr(float(check.nats or 0.0)), "early": early, "late": late}
    return replace(metric, terms=tuple(term.format_map(values) for term in metric.terms))


def _early_minus_late(sums: Floats) -> Floats:
    """Return the mean loss of early tokens minus that of late tokens, as `lossprobe positions` defines them."""
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])


METRICS = {
    "nll": Metric(
        unit="nats per token", range=(0, math.inf), in_percent=True,
        terms=(TOKEN_LOSS, "1"), columns=("loss_nats",), statistic=ratio, worst=10.0,
    ),
    "perplexity": Metric(
        unit="per token", range=(1, math.inf), in_percent=True, per_nat=True,
        terms=(TOKEN_LOSS, "1"), columns=("loss_nats",), statistic=ratio, worst=10.0,
    ),
    "bits_per_byte": Metric(
        unit="bits per byte", range=(0, math.inf), in_percent=True, per_byte=True,
        terms=(f"{TOKEN_LOSS} / {NATS_PER_BIT!r}", BYTES), columns=("loss_nats",), statistic=ratio, worst=8.0,
    ),
    "accuracy": Metric(
        unit="share of tokens", range=(0, 1), in_percent=True,
        terms=(CORRECT, "1"), columns=("top_id",), statistic=ratio, share=True,
    ),
    "ece": Metric(
        unit="probability", range=(0, 1),
        columns=("top_prob", "top_id"), statistic=expected_calibration_error, smooth=False, partial=False,
    ),
    "confidence_gap": Metric(
        unit="probability", range=(-1, 1),
        terms=(f"{TOP_PROB} - {CORRECT}", "1"), columns=("top_prob", "top_id"), statistic=ratio, worst=2.0,
    ),
    "brier": Metric(
        unit="squared error", range=(0, 2), in_percent=True,
        terms=(BRIER, "1"), columns=("loss_nats", "sum_p2"), statistic=ratio, worst=2.0,
    ),
    "quantile": Metric(
        unit="nats", range=(0, math.inf), parameter="quantile",
        columns=("loss_nats",), statistic=np.asarray, smooth=False, partial=False,
    ),
    "share_above": Metric(
        unit="share of tokens", range=(0, 1), parameter="nats",
        terms=(f"({TOKEN_LOSS} > {{nats}})::INTEGER", "1"), columns=("loss_nats",), statistic=ratio, share=True,
    ),
    "loss50_minus_loss500": Metric(
        unit="nats per token", range=(-math.inf, math.inf),
        terms=tuple(
            term
            for part in ("{early}", "{late}")
            for term in (f"CASE WHEN {part} THEN {TOKEN_LOSS} ELSE 0 END", f"({part})::INTEGER")
        ),
        columns=("loss_nats",), statistic=_early_minus_late, both=(1, 3), partial=False,
    ),
    "unscored_share": Metric(
        unit="share of tokens", range=(0, 1),
        terms=("(unscored IS NOT NULL)::INTEGER", "1"), columns=(), statistic=ratio, of_scored=False,
    ),
    "mean_kl_nats": Metric(
        unit="nats per token", range=(0, math.inf), columns=(), statistic=mean_divergence, partial=False, of_pair=True,
        terms=("CASE WHEN isfinite(kl_nats) THEN kl_nats ELSE 0 END", "1", "(NOT isfinite(kl_nats))::INTEGER"),
    ),
    "same_top_share": Metric(
        unit="share of tokens", range=(0, 1), columns=(), statistic=ratio, share=True, partial=False, of_pair=True,
        terms=("same_top::INTEGER", "1"),
    ),
}  # fmt: skip


def value_scale(metric: Metric) -> Scale:
    """Return the scale of a metric's value."""
    if metric.per_nat:
        return Scale(metric.statistic, perplexity, _log, metric.unit, metric.range)
    return Scale(metric.statistic, _same, _same, metric.unit, metric.range)


def change_scale(metric: Metric, *, percent: bool) -> Scale:
    """Return the scale of a metric's change from the baseline, in its unit or in percent of the baseline's value.

    The change of perplexity in percent is 100 (e^d − 1), where d is the difference of the mean losses in nats.
    """
    if percent and metric.per_nat:
        return Scale(lambda sums: _difference(metric.statistic(sums)), _percent, _nats, "%")
    if percent:
        return Scale(lambda sums: _growth(metric.statistic(sums)), _same, _same, "%")
    return Scale(lambda sums: _difference(metric.statistic(sums)), _same, _same, metric.unit)


def _difference(values: Floats) -> Floats:
    """Return model − baseline, [...], from values [..., 2] of baseline and model."""
    return np.asarray(values[..., 1] - values[..., 0])


def _growth(values: Floats) -> Floats:
    """Return 100 (model / baseline − 1), [...], from values [..., 2]; NaN where the baseline is 0."""
    baseline, model = values[..., 0], values[..., 1]
    quotient = np.divide(model, baseline, out=np.full(np.shape(baseline), np.nan), where=baseline != 0)
    return np.asarray(100.0 * (quotient - 1.0))


def _same(value: float) -> float:
    return value


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _percent(nats: float) -> float:
    return 100.0 * math.expm1(nats) if nats < 700 else math.inf


def _nats(percent: float) -> float:
    return math.log1p(percent / 100.0) if percent > -100.0 else -math.inf
