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


def against_rest(rows: Sequence[Mapping[str, Any]], place: int, mean: float) -> tuple[float, Interval, int]:
    """Return how far the mean of a group is above that of all others together, its 95 % interval, and its clusters.

    With w the group's share of the tokens, m its mean and M that of all, the others have (M − w m) / (1 − w). Half the
    length h of the interval is √(h₁² + Σ (w h)²) over the other groups, w being their shares of the others: the groups
    are taken as independent. Those of one text are rather alike, which makes the interval a wide one. Groups that have
    no interval, or are not among the rows, add nothing to it.

    Args:
        rows: the groups: share_of_tokens, mean_loss_nats, low, high, clusters.
        place: which of them.
        mean: mean loss of all tokens.

    Two groups of a quarter with 3 ± 0.3 and 1 ± 0.4 nats, and one of a half with 2 ± 0: 3 − 5/3 and √(0.09 + 0.4²/9).

    >>> groups = [{"share_of_tokens": 0.25, "mean_loss_nats": 3, "low": 2.7, "high": 3.3, "clusters": 5},
    ...           {"share_of_tokens": 0.25, "mean_loss_nats": 1, "low": 0.6, "high": 1.4, "clusters": 7},
    ...           {"share_of_tokens": 0.5, "mean_loss_nats": 2, "low": 2, "high": 2, "clusters": 5}]
    >>> difference, interval, clusters = against_rest(groups, 0, 2.0)
    >>> round(difference, 4), round(difference - interval.low, 4), clusters
    (1.3333, 0.3283, 5)
    """
    own = rows[place]
    others = 1.0 - float(own["share_of_tokens"])
    if others <= 0.0:
        return 0.0, NO_INTERVAL, 0
    difference = float(own["mean_loss_nats"] - (mean - own["share_of_tokens"] * own["mean_loss_nats"]) / others)
    square = ((own["high"] - own["low"]) / 2.0) ** 2
    for at, row in enumerate(rows):
        half = (row["high"] - row["low"]) / 2.0 * row["share_of_tokens"] / others
        square += half**2 if at != place and not math.isnan(half) else 0.0
    if math.isnan(square):
        return difference, NO_INTERVAL, 0
    half = math.sqrt(square)
    return difference, Interval(difference - half, difference + half), int(own["clusters"])
