"""What other tools would say of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lossprobe.analysis.protocols.protocols import ProtocolScore
from lossprobe.analysis.protocols.table import ProtocolTable
from lossprobe.plan.protocols import PROTOCOLS
from lossprobe.report.formats.cells import by_unit
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

YIELDS = ("headline", "tokens_unscored", "mean_context", "tokens_scored", "difference_nats", "count", "low", "high")


def protocol_view(run: Run, result: ProtocolScore, inputs: Sequence[Path]) -> View:
    """Return the view of what one tool says; `inputs` are the files of its text."""
    lines = (f"as {result.tool}", PROTOCOLS[result.protocol].why)
    return view_of_runs(
        "protocols", [run], result, lines=lines, shown=by_unit(result.table), yields=YIELDS, inputs=tuple(inputs)
    )


def protocols_view(run: Run, result: ProtocolTable) -> View:
    """Return the view of what all tools say, a row for each."""
    lines = tuple(f"{row.protocol}: {row.why}" for row in result.table.itertuples())
    return view_of_runs("protocols", [run], result, lines=lines, left_out=("why",), yields=YIELDS)
