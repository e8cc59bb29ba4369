"""Two models on one text: the measures, and where the models differ."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lossprobe.analysis.compare.compare import Comparison
from lossprobe.report.formats.cells import by_unit
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.reader import Run

# The tables for people leave these to the CSV and JSON, so that a row stays readable.
LEFT_OUT = ("text", "second_top_text", "first_top_text", "clusters", "token_id", "source", "line", "p_value")


def compare_view(runs: Sequence[Run], result: Comparison, top: int) -> View:
    """Return the view of a comparison, with the `top` tokens of the largest divergence."""
    return view_of_runs("compare", runs, result, shown=by_unit(result.table), more=_more(result, top))


def _more(result: Comparison, top: int) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the further tables: where the models differ, and how far their distributions are apart."""
    tables = []
    if result.token_comparison is not None and result.changes is not None:
        changes = result.changes
        tables.append((f"largest changes by {changes.by}", _readable(changes.table)))
        if changes.examples is not None and len(changes.examples):
            tables.append(("tokens forgotten and learned", _readable(changes.examples)))
        tables.append(("by context", result.token_comparison.by_position))
    if result.byte_comparison is not None:
        tables.append(("by the place of the cut", result.byte_comparison.by_cut))
        tables.append(("largest changes by span", result.byte_comparison.largest))
    if result.divergence is not None:
        tables.append(("divergence of the distributions", result.divergence.table))
        tables.append(("tokens with the largest divergence", result.divergence.hardest.head(top)))
    return tuple(tables)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[column for column in LEFT_OUT if column in table])
