"""Loss by the amount of context a token had, or by its place in the document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import pandas as pd

from lossprobe.analysis.context_contrasts import ContextContrast, contrast_ranges, contrasts_of
from lossprobe.analysis.deferred import Deferred
from lossprobe.analysis.opening import opening_note
from lossprobe.analysis.options import PositionOptions
from lossprobe.analysis.rows.clusters import find_clusters, grouped_losses
from lossprobe.analysis.rows.position_sums import PositionSums, Range, position_sums
from lossprobe.analysis.shown import Shown
from lossprobe.analysis.stats.interval import NO_INTERVAL, Estimate, Interval
from lossprobe.analysis.stats.jackknife import Clusters, around
from lossprobe.analysis.stats.octaves import octave_sql
from lossprobe.analysis.stats.power_law import PowerLaw, fit_power_law
from lossprobe.errors import NothingToScoreError, UsageError
from lossprobe.options.given import check_options
from lossprobe.run.argument import check_runs
from lossprobe.run.reader import Run
from lossprobe.text.spans import SAID
from lossprobe.units import format_count, plural, visible

# Column of the table, and column of the tokens.
AXES = {
    "context": ("context", "context"), "document-position": ("position", "token"),
    "answer-position": ("position", "answer_position"),
}  # fmt: skip
# Of what the assistant writes, or the completion, the place in its turn, from 1, be its first tokens scored or not.
ANSWERS = f"""(
    SELECT *, token - min(token) OVER (PARTITION BY document, turn) + 1 AS answer_position FROM tokens
    WHERE role IN ('assistant', 'completion') AND part IN ({", ".join(f"'{part}'" for part in sorted(SAID))}))"""
EARLY, LATE = 50, 500
EARLY_HALF_WIDTH, LATE_HALF_WIDTH = 5, 50
EVERY_POSITIONS = 1 << 17  # more single positions than this are no table and no picture
EVERY: Any = Deferred()


@dataclass(frozen=True)
class PositionLosses(Shown):
    """Mean loss by position.

    Attributes:
        by: "context" (tokens seen before predicting), "document-position" (index in the document) or
            "answer-position" (place in a turn of the assistant, from 1, the tokens of its header left out).
        bins: "geometric" (1, 2-3, 4-7, …) or "every".
        table: one row per bin: context (first of the bin; by document-position the column is position), context_last,
            count, mean_loss_nats, low, high (95 % jackknife-t over documents or blocks; NaN with fewer than two),
            clusters (how many of them reach the bin: a small number late means that only long documents are left).
        every: the same for every position below 131,072, for plots; measured when it is first looked at.
        loss50_minus_loss500: mean loss at about 50 tokens of context minus that at about 500, over the documents (or
            blocks) that have both, so that it compares the same texts; positive means that more context helps
            (in-context learning; Olsson et al. 2022 give it the other sign). None where none has both.
        loss50_minus_loss500_interval: its 95 % jackknife-t interval.
        early_range, late_range: the contexts averaged for it, first and last.
        fit: a + b (t + 1)^−α over t ≥ 1, or None where it does not settle or misses; descriptive, never extrapolate.
        contrasts: by context, the loss at one range of it against another; none by anything else, or where the longest
            context is shorter than 64 tokens.
        interval_unit: "document" or "block".
        notes: what a reader must know, one line each.
    """

    by: str
    bins: str
    table: pd.DataFrame = field(repr=False)
    every: pd.DataFrame = field(default=EVERY, repr=False, kw_only=True)
    loss50_minus_loss500: float | None
    loss50_minus_loss500_interval: Interval
    early_range: list[int]
    late_range: list[int]
    fit: PowerLaw | None
    contrasts: list[ContextContrast]
    interval_unit: str
    notes: list[str]

    @property
    def axis(self) -> str:
        """Name of the position's column: "context", or "position" in the document or the answer."""
        return AXES[self.by][0]

    @property
    def finding(self) -> str:
        """The result in one line."""
        several = self.table[self.table["clusters"] > 1]  # a bin of one document says more of it than of the position
        rows = several if len(several) else self.table
        gain = "n/a" if self.loss50_minus_loss500 is None else f"{self.loss50_minus_loss500:+.4f} nats"
        return f"{self._change(rows)}; loss50_minus_loss500 {gain}"

    def _change(self, rows: pd.DataFrame) -> str:
        """Return in words how the loss differs between the first and the last of some bins."""
        first, last = rows.iloc[0], rows.iloc[-1]
        if len(rows) == 1:
            return f"a single bin ({self.axis} {_bin_name(first)}): nothing to compare it with"
        fall = first["mean_loss_nats"] - last["mean_loss_nats"]
        change = f"loss {'falls' if fall >= 0 else 'rises'} by {abs(fall):.3f} nats"
        if first["low"] <= last["high"] and last["low"] <= first["high"]:
            change += " (no more than the intervals allow)"
        span = f"{_bin_name(first)} to {_bin_name(last)}"
        return f"{change} from {span} tokens of context" if self.by == "context" else f"{change} from position {span}"


def measure_positions(run: Run, by: str = PositionOptions.by, bins: str = PositionOptions.bins) -> PositionLosses:
    """Return mean loss by position.

    Args:
        run: the run.
        by: "context", "document-position" or "answer-position".
        bins: "geometric" or "every", for the table.

    Raises:
        UsageError, NothingToScoreError: "answer-position" of plain text, or where no answer has a loss.
    """
    check_runs(run=run)
    check_options(PositionOptions, by=by, bins=bins)
    if by == "answer-position":
        _refuse_without_answers(run)
    (axis, column), tokens = AXES[by], ANSWERS if by == "answer-position" else "tokens"
    clusters = find_clusters(run)
    measure_every = partial(_every_position, run, clusters, axis, column, tokens)
    every: Any = measure_every if bins == "geometric" else measure_every()
    octaves = grouped_losses(run, clusters, octave_sql(column), tokens)
    geometric = _positions(axis, octaves, lambda key: 2**key, lambda key: 2 ** (key + 1) - 1)
    largest = int(run.scalar(f"SELECT max({column}) FROM {tokens} WHERE unscored IS NULL"))
    geometric[f"{axis}_last"] = geometric[f"{axis}_last"].clip(upper=largest)
    notes = [clusters.note] if clusters.note else []
    if largest >= EVERY_POSITIONS:
        notes.append(f"single positions: the first {format_count(EVERY_POSITIONS)} only")
    early, late = score_ranges(largest)
    ranges = contrast_ranges(run, largest) if by == "context" else {}
    wanted = [*chain(*ranges.values()), *((early, late) if largest > LATE else ())]
    sums = position_sums(run, clusters, column, wanted, tokens)
    difference: Estimate | None = None
    having_both = 0
    if largest > LATE:
        difference, having_both = _early_minus_late(sums, (early, late))
    notes += _notes_of_difference(by, clusters, largest, having_both)
    fit = fit_power_law(sums.folds)
    if fit is None:
        notes.append("power law: n/a, too few positions with an interval, or no stable fit")
    elif fit.misses:
        notes.append(_misfit_note(fit))
        fit = None
    if by != "answer-position" and (opening := opening_note(run)):  # answers begin after it
        notes.append(opening)
    return PositionLosses(
        by=by,
        bins=bins,
        table=geometric if bins == "geometric" else every,
        every=every,
        loss50_minus_loss500=None if difference is None else difference.value,
        loss50_minus_loss500_interval=NO_INTERVAL if difference is None else difference.interval,
        early_range=list(early),
        late_range=list(late),
        fit=fit,
        contrasts=contrasts_of(sums, ranges),
        interval_unit=clusters.unit,
        notes=notes,
    )


def _refuse_without_answers(run: Run) -> None:
    """Refuse a run that has no token of an answer with a loss."""
    if not run.labelled:
        raise UsageError("positions.plain_text", "`by` answer-position: plain text has no answers")
    if not run.scalar(f"SELECT count(*) FROM {ANSWERS} WHERE unscored IS NULL"):
        raise NothingToScoreError(
            "positions.no_answer", f"{visible(run.text_name, 80)}: no token of an answer has a loss",
            hint="`score` assistant or `score` all gives them one",
        )  # fmt: skip


def _notes_of_difference(by: str, clusters: Clusters, largest: int, having_both: int) -> list[str]:
    """Return why there is no loss50_minus_loss500, or of how many clusters it is where not all have both ranges."""
    if largest <= LATE:
        longest = {"context": "context is", "answer-position": "answer ends at"}.get(by, "document ends at")
        return [f"loss50_minus_loss500: n/a, the longest {longest} {plural(largest, 'token')} (501 needed)"]
    if not having_both:
        return [f"loss50_minus_loss500: n/a, no {clusters.unit} has tokens at both"]
    if having_both < clusters.count:
        return [f"loss50_minus_loss500: over the {plural(having_both, clusters.unit)} with tokens at both"]
    return []


def score_ranges(largest: int) -> tuple[Range, Range]:
    """Return the positions averaged for loss50_minus_loss500: 45-55, and 450-550 or less where the context ends.

    The later one stays symmetric about 500, so that it needs a position above 500.

    >>> score_ranges(2048), score_ranges(512)
    (((45, 55), (450, 550)), ((45, 55), (488, 512)))
    """
    half = min(LATE_HALF_WIDTH, largest - LATE) if largest > LATE else LATE_HALF_WIDTH
    return (EARLY - EARLY_HALF_WIDTH, EARLY + EARLY_HALF_WIDTH), (LATE - half, LATE + half)


def early_minus_late(
    run: Run,
    clusters: Clusters,
    column: str,
    ranges: tuple[Range, Range],
    source: str = "tokens",
) -> tuple[Estimate | None, int]:
    """Return the difference of two ranges' mean losses over the clusters that have both, and how many these are."""
    return _early_minus_late(position_sums(run, clusters, column, ranges, source), ranges)


def _early_minus_late(found: PositionSums, ranges: tuple[Range, Range]) -> tuple[Estimate | None, int]:
    frame = found.over(ranges)
    sums = frame[(frame.iloc[:, [1, 3]] > 0).all(axis=1)].to_numpy(float)
    if not len(sums):
        return None, 0
    total = sums.sum(axis=0)
    value = float(total[0] / total[1] - total[2] / total[3])
    if len(sums) < 2:
        return Estimate(value), 1
    rest = total - sums
    return around(value, rest[:, 0] / rest[:, 1] - rest[:, 2] / rest[:, 3]), len(sums)


def _positions(axis: str, frame: pd.DataFrame, first: Callable[[int], int], last: Callable[[int], int]) -> pd.DataFrame:
    keys = [int(key) for key in frame["key"]]
    table = frame[["count", "mean_loss_nats", "low", "high", "clusters"]].copy()
    table.insert(0, axis, [first(key) for key in keys])
    table.insert(1, f"{axis}_last", [last(key) for key in keys])
    return table


def _every_position(run: Run, clusters: Clusters, axis: str, column: str, source: str) -> pd.DataFrame:
    losses = grouped_losses(run, clusters, column, source, f"{column} < {EVERY_POSITIONS}")
    return _positions(axis, losses, lambda key: key, lambda key: key)


def _misfit_note(fit: PowerLaw) -> str:
    """Return why a fit is not given: the test, where the loss is clearest off the curve, and its runs of residuals."""
    where = f"{fit.clearest_residual_nats:+.3f} nats at about {plural(round(fit.clearest_residual_position), 'token')}"
    runs = f"{plural(fit.residual_runs, 'run')} of residuals, {fit.residual_runs_expected:.0f} expected"
    return f"no power law (p {fit.misfit_p:.1g}): the loss is off it, clearest by {where}; {runs}"


def _bin_name(row: pd.Series) -> str:
    first, last = int(row.iloc[0]), int(row.iloc[1])
    return format_count(first) if first == last else f"{format_count(first)}-{format_count(last)}"
