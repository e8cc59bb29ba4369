"""What a series of a training log holds, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.seen import Points
from lossprobe.analysis.curve.trend import change_over
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.logs.log import Log, Series


@dataclass(frozen=True)
class Summary:
    """A series in numbers; those that need a finite row are None where there is none.

    Attributes:
        split: what it was measured on.
        name: what it is, such as "loss".
        key: its name in the log.
        points: its rows.
        not_finite: rows that are NaN or infinite.
        first_step: the step of the first row; None without rows, as `last_step`.
        last_step: the step of the last row.
        first: the first finite value, in the unit of the series, as all values here.
        last: the last finite value.
        lowest: the lowest finite value.
        lowest_step: its step; of equals the first.
        noise: the standard deviation of the values about their curve (`noise.scale`); None with fewer than three.
        trend: the change of the last half of the finite rows per 1,000 steps; None with fewer than three there.
        trend_interval: its interval at 95 %.
    """

    split: str
    name: str
    key: str
    points: int
    not_finite: int
    first_step: int | None
    last_step: int | None
    first: float | None
    last: float | None
    lowest: float | None
    lowest_step: int | None
    noise: float | None
    trend: float | None
    trend_interval: Interval = NO_INTERVAL


def summarise(log: Log) -> tuple[Summary, ...]:
    """Return the numbers of each series of a log, in its order."""
    return tuple(map(_summary, log.series))


def _summary(series: Series) -> Summary:
    points = Points.of(series)
    count, rows = len(series.values), len(points)
    lowest = int(np.argmin(points.values)) if rows else None
    half = points.rows_since(rows // 2)
    trend, interval = None, NO_INTERVAL
    if len(half) >= 3:
        change = change_over(half.values).map(lambda value: 1000.0 * value / (half.step(-1) - half.step(0)))
        trend, interval = change.value, change.interval
    return Summary(
        split=series.split,
        name=series.name,
        key=series.key,
        points=count,
        not_finite=count - rows,
        first_step=int(series.steps[0]) if count else None,
        last_step=int(series.steps[-1]) if count else None,
        first=float(points.values[0]) if rows else None,
        last=float(points.values[-1]) if rows else None,
        lowest=None if lowest is None else float(points.values[lowest]),
        lowest_step=None if lowest is None else points.step(lowest),
        noise=points.noise if rows >= 3 else None,
        trend=trend,
        trend_interval=interval,
    )
