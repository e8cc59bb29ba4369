"""Two models on one text: the measures, and where the models differ."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from lossprobe.analysis.compare.changes import Changes
from lossprobe.analysis.compare.compare import Comparison
from lossprobe.analysis.compare.divergence import Divergence
from lossprobe.analysis.compare.divergence_rows import divergence_batches
from lossprobe.report.formats.cells import by_unit, small_numbers
from lossprobe.report.formats.csv import batches_to_csv
from lossprobe.report.views.view import View, view_of_runs
from lossprobe.run.pair import Pair
from lossprobe.run.reader import Run

DIVERGENCE = "divergence of the distributions"
HARDEST = "tokens where the models differ most (KL)"
BY_CUT = "by the place of the cut"
BY_FILE = "by file"
ROWS = 2  # of changes for the worse, and for the better, on one screen
GROUPS = 6  # of a single ranking
KL_ROWS = 3  # of the divergence by slice or token, on one screen
HARDEST_SHOWN = ("kl_nats", "before", "characters", "first_top_text", "second_top_text", "document", "token")
KL_COLUMNS = ("mean_kl_nats", "low", "high")
MEASURES = (
    "mean_difference_nats", "perplexity_ratio", "accuracy_difference", "p_value", "minimum_detectable_nats", "tokens",
    "clusters", "forgotten", "learned",
)  # fmt: skip
BESIDE_KL = ("mean_difference_nats", "perplexity_ratio")  # all that one screen has room for then
DIVERGENCES = ("mean_kl_nats", "kl_nats_q0.99", "kl_nats_q1", "same_top_share", "rms_target_prob_change")
YIELDS = (
    "record_source", "transition", "context", "first_top_text", "second_top_text", "token_id", "clusters", "kind",
    "p_holm", "source", "line", "record_id", "direction", "after", "second_loss_nats", "first_loss_nats", "characters",
    "significant", "bytes", "second_bits_per_byte", "first_bits_per_byte", "contribution_bits_per_byte",
    "contribution_nats", "low", "high",
)  # fmt: skip
# The tables for people leave these to the CSV and JSON, so that a row stays readable.
LEFT_OUT = ("text", "second_top_text", "first_top_text", "clusters", "token_id", "source", "line", "p_value")


def compare_view(runs: Sequence[Run], result: Comparison, pair: Pair | None = None) -> View:
    """Return the view of a comparison; with the stored pair of the runs the CSV has a row for each scored token."""
    csv = None if pair is None else lambda: batches_to_csv(divergence_batches(pair))
    return view_of_runs("compare", runs, result, csv=csv, shown=by_unit(result.table), more=_more(result),
                        yields=YIELDS, brief=_brief(result))  # fmt: skip


def _brief(result: Comparison) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the tables of one screen: the main measures, and the largest changes or how distributions differ."""
    measures = MEASURES if result.divergence is None else BESIDE_KL
    main = result.table if result.byte_comparison is not None else _rows(result.table, measures)
    tables = [("", by_unit(main))]
    if result.divergence is not None:
        tables.append((DIVERGENCE, by_unit(_rows(result.divergence.table, DIVERGENCES), small=True)))
        tables.append(_brief_divergence(result.divergence))
    elif result.changes is not None:
        changes = result.changes
        for title, table in _rankings(changes):
            rows = table.head(ROWS)
            if changes.by != "token":  # in their order, which is that of their names by class and context
                rows = table.loc[table["contribution_nats"].abs().nlargest(GROUPS).index.sort_values()]
            tables.append((f"{title} ({len(rows)} of {len(table)})", _readable(rows)))
    elif result.byte_comparison is not None:
        tables.append((BY_CUT, result.byte_comparison.by_cut))
    return tuple(tables)


def _brief_divergence(divergence: Divergence) -> tuple[str, pd.DataFrame]:
    """Return the largest divergences of one screen: by slice, or the single tokens."""
    table = divergence.slices
    if table is None:
        rows = small_numbers(divergence.hardest.head(KL_ROWS), ["kl_nats"])
        return f"{HARDEST} ({len(rows)} of {len(divergence.hardest)})", rows[list(HARDEST_SHOWN)]
    largest = (table["mean_kl_nats"] * table["tokens"]).nlargest(KL_ROWS).index.sort_values()
    rows = small_numbers(_readable(table.loc[largest]), KL_COLUMNS)
    return f"KL by {divergence.by} ({len(rows)} of {len(table)})", rows


def _rankings(changes: Changes) -> list[tuple[str, pd.DataFrame]]:
    """Return the largest changes; by token those for the worse and those for the better, which are two rankings."""
    if changes.by != "token":
        return [(f"largest changes by {changes.by}", changes.table)]
    parts = changes.table.groupby("direction", sort=False)
    return [(f"tokens that became {direction}", part.drop(columns="direction")) for direction, part in parts]


def _rows(table: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    return table[table["measure"].isin(measures)]


def _more(result: Comparison) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return the further tables: where the models differ, and how far their distributions are apart."""
    tables = []
    if result.token_comparison is not None and result.changes is not None:
        changes = result.changes
        tables += [(title, _readable(table)) for title, table in _rankings(changes)]
        if changes.examples is not None:
            for transition, part in changes.examples.groupby("transition", sort=False):
                tables.append((f"tokens {transition}", _readable(part.drop(columns=["direction", "transition"]))))
        tables.append(("by context", result.token_comparison.by_position))
    if result.byte_comparison is not None:
        tables.append((BY_CUT, result.byte_comparison.by_cut))
        if len(result.byte_comparison.by_file):
            tables.append((BY_FILE, result.byte_comparison.by_file))
        tables.append(("largest changes by span", result.byte_comparison.largest))
    if result.divergence is not None:
        tables += _divergences(result.divergence)
    return tuple(tables)


def _divergences(divergence: Divergence) -> list[tuple[str, pd.DataFrame]]:
    """Return all tables of a divergence."""
    tables = [(DIVERGENCE, by_unit(divergence.table, small=True))]
    if divergence.slices is not None:
        tables.append((f"KL by {divergence.by}", small_numbers(_readable(divergence.slices), KL_COLUMNS)))
    if divergence.by != "context":
        tables.append(("KL by context", small_numbers(_readable(divergence.by_position), KL_COLUMNS)))
    hardest = small_numbers(divergence.hardest.drop(columns=["text", "token_id"]), ["kl_nats"])
    return [*tables, (HARDEST, hardest)]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=[column for column in LEFT_OUT if column in table])
