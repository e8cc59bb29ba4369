"""Where the numbers of runs came from."""

from __future__ import annotations

from collections.abc import Sequence

from lossprobe.analysis.provenance import Provenance
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run


def provenance_view(runs: Sequence[Run], result: Provenance) -> View:
    """Return the view of the settings of runs."""
    return view_of_runs("provenance", runs, result)
