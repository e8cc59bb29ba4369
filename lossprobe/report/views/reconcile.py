"""Which recipe gives the number in a training log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lossprobe.analysis.reconcile.reconcile import Reconciliation
from lossprobe.report.formats.cells import small_numbers
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

LEFT_OUT = ("by_chance", "same_number")
YIELDS = ("difference", "departures", "agrees", "rank")


def reconcile_view(run: Run, result: Reconciliation, inputs: Sequence[Path] = ()) -> View:
    """Return the view of a reconciliation; `inputs` are the files of its text and its log."""
    same = str(result.table["same_number"].iloc[0])
    lines = (f"the same number as the first: {same}",) if same else ()
    return view_of_runs(
        "reconcile", [run], result, shown=small_numbers(result.table, ["difference"]), lines=lines, left_out=LEFT_OUT,
        yields=YIELDS, inputs=tuple(inputs),
    )  # fmt: skip
