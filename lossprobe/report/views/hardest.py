"""The hardest tokens, entries, documents or classes."""

from __future__ import annotations

from lossprobe.analysis.hardest import Hardest
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

# The table for people leaves these to the CSV, so that a row stays readable.
LEFT_OUT = {"token": ("text", "top_prob"), "type": (), "document": ("source",), "class": ()}


def hardest_view(run: Run, result: Hardest) -> View:
    """Return the view of what is hardest."""
    return view_of_runs("hardest", [run], result, left_out=LEFT_OUT[result.by])
