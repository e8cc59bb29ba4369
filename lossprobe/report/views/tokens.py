"""Every token, in rows."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.analysis.tokens import TokenLosses, token_batches
from lossprobe.report.formats.csv import batches_to_csv
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

YIELDS = ("token_id", "top_prob", "entropy_nats", "turn", "context", "part", "rank", "top_text", "role")


def tokens_view(run: Run, result: TokenLosses, where: Sequence[str]) -> View:
    """Return the view of a run's tokens; the CSV holds all of them that meet the conditions `where`."""
    return view_of_runs("tokens", [run], result, csv=lambda: batches_to_csv(token_batches(run, where), result.tokens),
                        yields=YIELDS)  # fmt: skip
