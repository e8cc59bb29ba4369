"""Loss by the amount of context a token had, or by its place in the document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.clusters import Clusters, Interval, around, find_clusters, grouped_losses
from lossprobe.analysis.power_law import PowerLaw, fit_power_law
from lossprobe.run.reader import Run
from lossprobe.units import format_count

AXES = {"context": "context", "document-position": "token"}
BINS = ("geometric", "every")
EARLY, LATE = 50, 500
EARLY_HALF_WIDTH, LATE_HALF_WIDTH = 5, 50
STEPS_PER_OCTAVE = 4


@dataclass(frozen=True)
class PositionLosses:
    """Mean loss by position.

    Attributes:
        by: "context" (tokens seen before predicting) or "document-position" (index in the document).
        bins: "geometric" (1, 2-3, 4-7, …) or "every".
        table: one row per bin: context (first of the bin), context_last, count, mean_loss_nats, low, high (95 %
            jackknife-t over documents or blocks; NaN with fewer than two), clusters (how many of them reach the bin:
            a small number late means that only long documents are left).
        every: the same for every position, for plots.
        loss50_minus_loss500: mean loss with about 50 tokens of context minus that with about 500; positive means
            that more context helps (in-context learning; Olsson et al. 2022 give it the other sign). None when
            fewer than 501 tokens of context exist.
        loss50_minus_loss500_interval: its [low, high].
        early_range, late_range: the contexts averaged for it, first and last.
        fit: a + b (t + 1)^−α over t ≥ 1, or None where it does not settle; descriptive, never extrapolate.
        interval_unit: "document" or "block".
        notes: what a reader must know, one line each.
    """

    by: str
    bins: str
    table: pd.DataFrame = field(repr=False)
    every: pd.DataFrame = field(repr=False)
    loss50_minus_loss500: float | None
    loss50_minus_loss500_interval: list[float | None]
    early_range: list[int]
    late_range: list[int]
    fit: PowerLaw | None
    interval_unit: str
    notes: list[str]

    @property
    def finding(self) -> str:
        """The result in one line."""
        first, last = self.table.iloc[0], self.table.iloc[-1]
        fall = first["mean_loss_nats"] - last["mean_loss_nats"]
        change = f"loss {'falls' if fall >= 0 else 'rises'} by {abs(fall):.3f} nats"
        span = f"{_bin_name(first)} to {_bin_name(last)}"
        text = f"{change} from {span} tokens of context" if self.by == "context" else f"{change} from position {span}"
        gain = "n/a" if self.loss50_minus_loss500 is None else f"{self.loss50_minus_loss500:+.4f} nats"
        return f"{text}; loss50_minus_loss500 {gain}"


def measure_positions(run: Run, by: str = "context", bins: str = "geometric") -> PositionLosses:
    """Return mean loss by position.

    Args:
        run: the run.
        by: "context" or "document-position".
        bins: "geometric" or "every", for the table.
    """
    column = AXES[by]
    clusters = find_clusters(run)
    every = _positions(grouped_losses(run, clusters, column), lambda key: key, lambda key: key)
    octave = f"CAST(floor(log2({column}) + 1e-12) AS INTEGER)"
    geometric = _positions(grouped_losses(run, clusters, octave), lambda key: 2**key, lambda key: 2 ** (key + 1) - 1)
    largest = int(every["context"].max())
    geometric["context_last"] = geometric["context_last"].clip(upper=largest)
    notes = [clusters.note] if clusters.note else []
    difference, early, late = early_minus_late(run, clusters, column, largest)
    if difference is None:
        notes.append(f"loss50_minus_loss500: n/a, the longest context is {format_count(largest)} tokens (501 needed)")
    fit = fit_power_law(_fine_bins(run, clusters, column))
    if fit is None:
        notes.append("power law: n/a, too few positions with an interval, or no stable fit")
    return PositionLosses(
        by=by,
        bins=bins,
        table=geometric if bins == "geometric" else every,
        every=every,
        loss50_minus_loss500=None if difference is None else difference.estimate,
        loss50_minus_loss500_interval=[None, None] if difference is None else [difference.low, difference.high],
        early_range=list(early),
        late_range=list(late),
        fit=fit,
        interval_unit=clusters.unit,
        notes=notes,
    )


def early_minus_late(
    run: Run, clusters: Clusters, column: str, largest: int
) -> tuple[Interval | None, tuple[int, int], tuple[int, int]]:
    """Return loss around position 50 minus loss around 500, and the two ranges.

    The ranges are 45-55 and 450-550, the later one kept symmetric about 500 where the context ends before 550.
    """
    early = (EARLY - EARLY_HALF_WIDTH, EARLY + EARLY_HALF_WIDTH)
    half = min(LATE_HALF_WIDTH, largest - LATE)
    late = (LATE - half, LATE + half)
    if half < 1:
        return None, early, (LATE - LATE_HALF_WIDTH, LATE + LATE_HALF_WIDTH)
    near, far = (f"{column} BETWEEN {low} AND {high}" for low, high in (early, late))
    sums = run.query(f"""
        SELECT coalesce(sum(loss_nats::DOUBLE) FILTER ({near}), 0) AS near_sum, count(*) FILTER ({near}) AS near_count,
               coalesce(sum(loss_nats::DOUBLE) FILTER ({far}), 0) AS far_sum, count(*) FILTER ({far}) AS far_count
        FROM tokens WHERE unscored IS NULL GROUP BY {clusters.sql} ORDER BY {clusters.sql}""").to_numpy(float)
    total = sums.sum(axis=0)
    if total[1] == 0 or total[3] == 0:
        return None, early, late
    estimate = total[0] / total[1] - total[2] / total[3]
    rest = total - sums
    if len(sums) < 2 or (rest[:, [1, 3]] <= 0).any():
        return Interval(float(estimate), None, None), early, late
    return around(float(estimate), rest[:, 0] / rest[:, 1] - rest[:, 2] / rest[:, 3]), early, late


def _positions(frame: pd.DataFrame, first: Callable[[int], int], last: Callable[[int], int]) -> pd.DataFrame:
    keys = [int(key) for key in frame["key"]]
    table = frame[["count", "mean_loss_nats", "low", "high", "clusters"]].copy()
    table.insert(0, "context", [first(key) for key in keys])
    table.insert(1, "context_last", [last(key) for key in keys])
    return table


def _fine_bins(run: Run, clusters: Clusters, column: str) -> pd.DataFrame:
    """Return quarter-octave bins with their mean position, for the fit."""
    key = f"CAST(floor({STEPS_PER_OCTAVE} * log2({column} + 1) + 1e-9) AS INTEGER)"
    frame = grouped_losses(run, clusters, key)
    position = run.query(
        f"SELECT avg({column}::DOUBLE) AS t FROM tokens WHERE unscored IS NULL GROUP BY {key} ORDER BY {key}"
    )
    return frame.assign(position=position["t"].to_numpy())


def _bin_name(row: pd.Series) -> str:
    first, last = int(row["context"]), int(row["context_last"])
    return format_count(first) if first == last else f"{format_count(first)}-{format_count(last)}"
