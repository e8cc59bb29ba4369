"""How numbers stand in the sentences of findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval


def with_interval(value: float, interval: Interval, form: str = ".2f", unit: str = " nats") -> str:
    """Return a number with its unit and interval.

    >>> with_interval(0.412, Interval(0.35, 0.47)), with_interval(1.0, Interval(None, None), ".1f", "")
    ('0.41 nats [0.35, 0.47]', '1.0')
    """
    shown = f"{value:{form}}{unit}"
    return shown if interval.low is None else f"{shown} {interval.shown(form)}"


def percent(share: float) -> str:
    """Return a share as a percentage with two digits that say something.

    >>> percent(0.123), percent(0.0123), percent(0.00049), percent(1.0)
    ('12 %', '1.2 %', '0.049 %', '100 %')
    """
    hundred = 100.0 * share
    return f"{hundred:.0f} %" if abs(hundred) >= 9.95 else f"{float(f'{hundred:.2g}'):g} %"


def share_of(part: float, whole: float) -> float:
    """Return part / whole, 0 where the whole is 0."""
    return part / whole if whole else 0.0


def between(low: float, high: float) -> Interval:
    """Return the interval of two ends in a table, where NaN stands for no interval."""
    return NO_INTERVAL if math.isnan(low) or math.isnan(high) else Interval(float(low), float(high))


def signed(interval: Interval, sign: float) -> Interval:
    """Return the interval of a number times a sign.

    >>> signed(Interval(-2.0, 1.0), -1), signed(Interval(-2.0, 1.0), 1)
    (Interval(low=-1.0, high=2.0), Interval(low=-2.0, high=1.0))
    """
    low, high = interval
    if low is None or high is None or sign > 0:
        return interval
    return Interval(-high, -low)


def against_rest(rows: Sequence[Mapping[str, Any]], place: int, mean: float) -> tuple[float, Interval, int]:
    """Return how far the mean of a group is above that of all others together, its 95 % interval, and its clusters.

    With w the group's share of the tokens, m its mean and M that of all, the others have (M − w m) / (1 − w). Its error
    is √(e₁² + Σ (w e)²) over the other groups, w being their shares of the others and e the errors that their intervals
    show: the groups are taken as independent. Those of one text are rather alike, which makes the interval a wide one.
    Groups that have no interval, or are not among the rows, add nothing to it. The clusters are those of Welch's and
    Satterthwaite's degrees of freedom, so that a group of two documents lends its doubt to all.

    Args:
        rows: the groups: share_of_tokens, mean_loss_nats, low, high, clusters.
        place: which of them.
        mean: mean loss of all tokens.

    Groups of a quarter with 3 nats and 1 nat, and one of a half with 2, with errors of 0.1, 0.3 and 0: the difference
    is 3 − 5/3, its error √(0.1² + 0.3²/9) = √0.02, and its degrees of freedom 0.02² / (0.1⁴/4 + 0.1⁴/6) = 9.6.

    >>> from lossprobe.analysis.stats.jackknife import t_quantile
    >>> e, f = (float(t_quantile(clusters)) * error for clusters, error in ((5, 0.1), (7, 0.3)))
    >>> groups = [{"share_of_tokens": 0.25, "mean_loss_nats": 3, "low": 3 - e, "high": 3 + e, "clusters": 5},
    ...           {"share_of_tokens": 0.25, "mean_loss_nats": 1, "low": 1 - f, "high": 1 + f, "clusters": 7},
    ...           {"share_of_tokens": 0.5, "mean_loss_nats": 2, "low": 2, "high": 2, "clusters": 5}]
    >>> difference, interval, clusters = against_rest(groups, 0, 2.0)
    >>> round(difference, 4), round((difference - interval.low) / float(t_quantile(10)), 4), clusters
    (1.3333, 0.1414, 10)
    """
    from lossprobe.analysis.stats.jackknife import t_quantile  # not for `explain`: it loads scipy

    own = rows[place]
    others = 1.0 - float(own["share_of_tokens"])
    if others <= 0.0:
        return 0.0, NO_INTERVAL, 0
    difference = float(own["mean_loss_nats"] - (mean - own["share_of_tokens"] * own["mean_loss_nats"]) / others)
    parts = [_variance(own, 1.0)]
    if math.isnan(parts[0][0]):
        return difference, NO_INTERVAL, 0
    parts += [_variance(row, row["share_of_tokens"] / others) for at, row in enumerate(rows) if at != place]
    parts = [(square, clusters) for square, clusters in parts if square > 0.0]
    square = sum(part for part, _ in parts)
    spread = sum(part**2 / (clusters - 1) for part, clusters in parts)
    clusters = max(2, 1 + int(square**2 / spread)) if spread else int(own["clusters"])
    half = float(t_quantile(clusters)) * math.sqrt(square)
    return difference, Interval(difference - half, difference + half), clusters


def _variance(row: Mapping[str, Any], weight: float) -> tuple[float, int]:
    """Return the variance that a group's interval shows of its weighted mean, NaN without one, and its clusters."""
    from lossprobe.analysis.stats.jackknife import t_quantile

    clusters = int(row["clusters"])
    half = weight * (row["high"] - row["low"]) / 2.0
    return (float(half / t_quantile(clusters)) ** 2 if clusters > 1 else math.nan), clusters
