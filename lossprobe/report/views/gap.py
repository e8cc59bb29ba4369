"""Training against held-out text: the gap, both texts, and the documents known by heart."""

from __future__ import annotations

import pandas as pd

from lossprobe.analysis.gap.gap import Gap, GapSide
from lossprobe.analysis.stats.interval import Interval
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_count, format_perplexity, plural, visible

YIELDS = (
    "record_source", "record_id",
    "p_holm", "validation_tokens", "train_tokens", "significant", "kind", "document", "line", "tokens",
    "validation_loss_nats", "train_loss_nats",
)  # fmt: skip
ENDS = ("train_low", "train_high", "validation_low", "validation_high")


def gap_view(train: Run, validation: Run, result: Gap) -> View:
    """Return the view of a gap between a run on training text and one on held-out text."""
    return view_of_runs("gap", [train, validation], result, lines=_lines(result), left_out=ENDS, yields=YIELDS,
                        more=_known_by_heart(result))  # fmt: skip


def _lines(result: Gap) -> tuple[str, ...]:
    """Return what stands below the table: both texts, and the documents known by heart."""
    return tuple(_side_line(name, side) for name, side in (("train", result.train), ("validation", result.validation)))


def _side_line(name: str, side: GapSide) -> str:
    text, known = visible(side.text, 80), side.memorised
    return (
        f"{name}: {text}, {plural(side.tokens, 'token')} in {plural(side.documents, 'document')}: "
        f"loss {_ranged(side.nll_nats, side.nll_nats_interval)}, perplexity {format_perplexity(side.perplexity)}, "
        f"accuracy {_ranged(side.accuracy, side.accuracy_interval)}; memorised {_percent(known.share_of_documents)} "
        f"of the documents and {_percent(known.share_of_tokens)} of their tokens"
    )


def _known_by_heart(result: Gap) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the tables of memorised documents, each with its heading."""
    return tuple(
        (
            f"{name}: documents known by heart ({len(known.table)} of {format_count(known.documents)})",
            known.table if known.table["source"].nunique() > 1 else known.table.drop(columns="source"),
        )
        for name, known in (("train", result.train.memorised), ("validation", result.validation.memorised))
        if len(known.table)
    )


def _ranged(value: float, interval: Interval) -> str:
    return f"{value:.4f} {interval.shown('.4f')}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"
