"""Checkpoints of a training run: loss against step, and what became of the tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lossprobe.analysis.series.result import CheckpointSeries, worded
from lossprobe.report.formats.csv import to_csv
from lossprobe.report.names import kind_words
from lossprobe.report.views.places import split_places
from lossprobe.report.views.view import View, text_heading, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import plural

# The table for people leaves these to the CSV, so that a row stays readable.
LEFT_OUT = ("excess_low", "excess_high", "lowest_loss_nats", "text")
YIELDS = (
    "model", "minus_unigram_nats", "nll_minus_entropy_nats", "significant", "low", "high", "context", "token_id",
    "first_loss_nats", "lowest_loss_nats", "state", "last_loss_nats", "minus_bigram_nats", "p_holm", "never_share",
    "unstable_share", "lowest_at_step", "characters",
)  # fmt: skip
KINDS = {"occurrence": "tokens that are first or repeated in their window", "form": "forms of tokens"}


def series_view(runs: Sequence[Run], result: CheckpointSeries) -> View:
    """Return the view of a series; the CSV holds the checkpoints, or the slices by step, or the listed tokens."""
    first, last = split_places(result.groups)
    kinds = " and ".join(dict.fromkeys(filter(None, map(kind_words, runs))))
    what = plural(len(result.steps), "checkpoint") + (f" ({kinds})" if kinds else "")
    of = f"{what}, {result.unit} {result.steps[0]} to {result.steps[-1]}"
    return view_of_runs("series", runs, result, heading=f"{of} on {text_heading(runs[0])}", left_out=LEFT_OUT,
                        csv=lambda: [to_csv(_rows(result)).encode()], more=tuple(_more(result)),
                        shown=result.table.dropna(axis=1, how="all"),
                        yields=(*first, *YIELDS, *last, "after", "begins"))  # fmt: skip


def _rows(result: CheckpointSeries) -> pd.DataFrame:
    """Return the rows of the CSV: what is about a whole slice stands in each row of its steps."""
    if result.listed is not None:
        return result.listed.drop(columns="losses_nats")
    if result.groups is None or result.curves is None:
        return result.table
    beside = result.groups.drop(columns=["tokens"])
    return result.curves.merge(beside, on=[name for name in ("kind", "group") if name in result.curves], how="left")


def _more(result: CheckpointSeries) -> list[tuple[str, pd.DataFrame]]:
    """Return the further tables: the slices, or the listed tokens."""
    if result.listed is not None:
        title = f"tokens {worded(result.state)}"
        return [(title, result.listed.drop(columns=["losses_nats", "state", "text", "lowest_loss_nats"]))]
    if result.groups is None:
        return []
    if "kind" not in result.groups:
        return [(f"by {result.by}", result.groups)]
    return [
        (title, part.drop(columns="kind"))
        for kind, title in KINDS.items()
        if len(part := result.groups[result.groups["kind"] == kind])
    ]
