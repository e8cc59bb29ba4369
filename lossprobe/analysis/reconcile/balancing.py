"""The load-balancing loss of the rows of a run, as far as it may be in a logged number."""

from __future__ import annotations

from lossprobe.analysis.logged.routing import coefficient_of, is_routed, routing_rows, routing_windows
from lossprobe.analysis.reconcile.feed import Balancing
from lossprobe.run.reader import Run


def balancing_of(run: Run, *, windows: bool = False) -> Balancing | None:
    """Return the load-balancing loss of the documents of a run, or of its windows; None where it has none.

    Args:
        run: the run, whose documents (or windows) are the rows of a trainer.
        windows: whether its windows are the rows.
    """
    router, coefficient = run.settings.checkpoint.router, coefficient_of(run)
    if not router or not coefficient or not is_routed(run):
        return None
    rows = routing_windows(run) if windows else routing_rows(run)
    return Balancing(rows, coefficient, bool(router["in_loss"]))
