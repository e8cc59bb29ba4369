"""Whether a loss depends on what should not matter: one row a check."""

from __future__ import annotations

from lossprobe.analysis.selfcheck import SelfCheck
from lossprobe.report.formats.cells import small_numbers
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

SMALL = ("difference_nats", "largest_nats", "limit_nats", "largest_limit_nats")
YIELDS = ("largest_limit_nats", "limit_nats", "tokens", "kind", "mean_loss_nats", "largest_nats", "setting")


def selfcheck_view(run: Run, result: SelfCheck) -> View:
    """Return the view of a self-check."""
    return view_of_runs("selfcheck", [run], result, shown=small_numbers(result.table, SMALL), yields=YIELDS)
