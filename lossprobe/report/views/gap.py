"""Training against held-out text: the gap, both texts, and the documents known by heart."""

from __future__ import annotations

import pandas as pd

from lossprobe.analysis.gap.gap import Gap
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run
from lossprobe.units import format_count, format_perplexity, visible

ENDS = ("train_low", "train_high", "validation_low", "validation_high")


def gap_view(train: Run, validation: Run, result: Gap) -> View:
    """Return the view of a gap between a run on training text and one on held-out text."""
    return view_of_runs("gap", [train, validation], result, lines=_lines(result), left_out=ENDS,
                        more=_known_by_heart(result))  # fmt: skip


def _lines(result: Gap) -> tuple[str, ...]:
    """Return what stands below the table: both texts, and the documents known by heart."""
    lines = []
    for name, known in (("train", result.train_memorised), ("validation", result.validation_memorised)):
        text = visible(getattr(result, f"{name}_text"), 80)
        tokens, documents = (format_count(getattr(result, f"{name}_{what}")) for what in ("tokens", "documents"))
        lines.append(
            f"{name}: {text}, {tokens} tokens in {documents} documents: loss {_ranged(result, f'{name}_nll_nats')}, "
            f"perplexity {format_perplexity(getattr(result, f'{name}_perplexity'))}, "
            f"accuracy {_ranged(result, f'{name}_accuracy')}; memorised {_percent(known.share_of_documents)} of the "
            f"documents and {_percent(known.share_of_tokens)} of their tokens"
        )
    return tuple(lines)


def _known_by_heart(result: Gap) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the tables of memorised documents, each with its heading."""
    return tuple(
        (
            f"{name}: documents known by heart ({len(known.table)} of {format_count(known.documents)})",
            known.table.drop(columns="source"),
        )
        for name, known in (("train", result.train_memorised), ("validation", result.validation_memorised))
        if len(known.table)
    )


def _ranged(result: Gap, name: str) -> str:
    low, high = getattr(result, f"{name}_interval")
    ends = "no interval" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"
    return f"{getattr(result, name):.4f} {ends}"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.1%}"
