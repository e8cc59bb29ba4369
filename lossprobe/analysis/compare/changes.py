"""Where two models on the same tokens differ: by token, vocabulary entry, document, context, class or field.

d = loss of the second − loss of the first: positive where the second model is worse. Every slice has its interval, and
since many slices are looked at, p-values are adjusted over all of them (`differences.holm`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.compare.changed_slices import ChangedSlices, changed_slices
from lossprobe.analysis.compare.changed_tokens import ChangedTokens, changed_tokens
from lossprobe.analysis.options import CompareOptions
from lossprobe.analysis.rows.clusters import find_clusters
from lossprobe.analysis.rows.differences import TESTED_CLUSTERS, TRANSITION_RULE
from lossprobe.analysis.rows.same_tokens import differing
from lossprobe.analysis.stats.significance import LEVEL
from lossprobe.run.names import distinct_names
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

UNRANKED = ("context", "class", "frequency")  # few slices, in an order of their own
COLUMNS = (
    "group", "tokens", "clusters", "mean_difference_nats", "low", "high", "contribution_nats", "p_value", "p_holm",
    "significant",
)  # fmt: skip
BESIDE = {
    "type": ["token_id"],
    "document": ["source", "line", "record_id", "record_source", "begins"],
    "class": ["kind"],
}


@dataclass(frozen=True)
class Changes:
    """What changed from a run to another one of the same tokens; differences are second − first.

    Attributes:
        by: "token", "type" (vocabulary entry), "document", "context", "class", "frequency" (how often the token is
            scored in the whole text), or a field of the JSONL records.
        first, second: names of the models, distinct.
        tokens: tokens that both scored; left_out: tokens that only one of them scored.
        mean_difference_nats: over all of them; None without any.
        groups: how many slices there are, shown or not; tests: how many of them were tested. None by token.
        forgotten, learned: how many tokens went from a loss below 1 nat to above 3 nats, and the other way round; None
            but by token.
        interval_unit: what intervals resample, "document" or "block".
        table: by token the largest changes for the worse, then for the better: direction ("worse", "better"), document,
            token, text, first_loss_nats, second_loss_nats, difference_nats, transition ("forgotten", "learned" or ""),
            first_top_text, second_top_text (what each model expected), context, before, characters, after (the text).
            Else one row per slice, those with the largest |contribution_nats| first (context, class and frequency: all,
            in a fixed order): group (contexts in octaves: "1", "2-3", …), tokens, clusters, mean_difference_nats, low,
            high (its 95 % jackknife-t interval; NaN with fewer than two clusters), contribution_nats (Σ d of the slice
            over all tokens: over all slices they sum to the overall mean), p_value (two-sided, of no difference; NaN
            with fewer than 5 clusters), p_holm (adjusted over all tests of this kind), significant (p_holm below
            5 %; missing where there was no test). By type also token_id; by document source, line, begins,
            and record_id and record_source where records have the fields id and source; by class also kind
            ("occurrence" or "form", each a partition of the tokens; one family of tests).
        examples: by token, forgotten and then learned tokens, with the columns of the table; None else.
        notes: what a reader must know, one line each.
        finding: the result in one line.
    """

    by: str
    first: str
    second: str
    tokens: int
    left_out: int
    mean_difference_nats: float | None
    groups: int | None
    tests: int | None
    forgotten: int | None
    learned: int | None
    interval_unit: str
    table: pd.DataFrame = field(repr=False)
    examples: pd.DataFrame | None = field(repr=False)
    notes: list[str]
    finding: str


def find_changes(
    first: Run,
    second: Run,
    by: str = CompareOptions.by,
    top: int = CompareOptions.top,
    tokens: ChangedTokens | None = None,
) -> Changes:
    """Return what changed between two runs of the same tokens; see `same_tokens.same_tokens`.

    Args:
        first: the run to compare with; texts, contexts, classes and clusters are taken from it.
        second: the other run.
        by: one of `CHANGES_BY` of `analysis.options`, or a field of the JSONL records.
        top: rows to return (by token: this many for the worse and this many for the better; `UNRANKED`: all).
        tokens: what `changed_tokens.changed_tokens` returns for these, where it was found already; by token only.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
        UsageError: no document has that field.
    """
    return (
        _tokens(first, second, tokens or changed_tokens(first, second, top))
        if by == "token"
        else _slices(first, second, by, top)
    )


def _tokens(first: Run, second: Run, found: ChangedTokens) -> Changes:
    names = distinct_names([first, second])
    counts = f"{plural(found.forgotten, 'token')} forgotten, {format_count(found.learned)} learned"
    finding = f"{names[1]} − {names[0]}: " + ("no token changed" if found.tokens else "no token that both scored")
    if len(found.table):
        largest = found.table.iloc[int(found.table["difference_nats"].abs().to_numpy(float).argmax())]
        finding = (
            f"{names[1]} − {names[0]}: {counts}; largest change: “{largest['characters']}” from "
            f"{largest['first_loss_nats']:.2f} to {largest['second_loss_nats']:.2f} nats"
        )
    return Changes(
        by="token",
        first=names[0],
        second=names[1],
        tokens=found.tokens,
        left_out=found.left_out,
        mean_difference_nats=found.total_nats / found.tokens if found.tokens else None,
        groups=None,
        tests=None,
        forgotten=found.forgotten,
        learned=found.learned,
        interval_unit=find_clusters(first).unit,
        table=found.table,
        examples=found.examples,
        notes=[*_shared_notes(first, second, found.left_out), TRANSITION_RULE],
        finding=finding,
    )


def _slices(first: Run, second: Run, by: str, top: int) -> Changes:
    names = distinct_names([first, second])
    found = changed_slices(first, second, by)
    table = found.table
    whole = table[table["kind"] == "form"] if by == "class" else table  # a partition: its parts sum to the whole
    tokens = int(whole["tokens"].sum())
    mean = float(whole["contribution_nats"].sum()) if tokens else None
    by_size = table["contribution_nats"].abs().sort_values(ascending=False, kind="stable").index
    shown = table if by in UNRANKED else table.loc[by_size].head(top)
    return Changes(
        by=by,
        first=names[0],
        second=names[1],
        tokens=tokens,
        left_out=found.left_out,
        mean_difference_nats=mean,
        groups=len(table),
        tests=found.tests,
        forgotten=None,
        learned=None,
        interval_unit=found.clusters.unit,
        table=shown.reset_index(drop=True)[[*(name for name in BESIDE.get(by, []) if name in shown), *COLUMNS]],
        examples=None,
        notes=[*_shared_notes(first, second, found.left_out), *_slice_notes(found, first)],
        finding=f"{names[1]} − {names[0]}: {_slice_finding(found, by, mean)}",
    )


def _shared_notes(first: Run, second: Run, left_out: int) -> list[str]:
    clusters = find_clusters(first)
    notes = [clusters.note] if clusters.note else []
    different = differing(first, second)
    if different:
        notes.append(f"the runs differ in {', '.join(different)}; contexts and classes are the first one's")
    if left_out:
        notes.append(f"{plural(left_out, 'token')} that only one of them scored left out")
    return notes


def _slice_notes(found: ChangedSlices, first: Run) -> list[str]:
    """Return notes on the tests, and on clusters that were merged."""
    unit, untested, notes = found.clusters.unit, len(found.table) - found.tests, []
    if found.tests:
        family = f"{plural(found.tests, 'test')}, one for each slice tested, those that are not shown included"
        notes.append(f"p_holm: adjusted over {family} (Holm 1979)")
    if untested:
        few = f"{plural(untested, 'slice')} with tokens of fewer than {TESTED_CLUSTERS} {unit}s"
        notes.append(f"{few}: not tested; an interval needs two")
    whole = find_clusters(first).count
    if found.clusters.count < whole:
        notes.append(f"intervals resample {format_count(found.clusters.count)} groups of the {plural(whole, unit)}")
    return notes


def _slice_finding(found: ChangedSlices, by: str, mean: float | None) -> str:
    if mean is None:
        return "no token that both scored"
    table = found.table
    significant = int(table["significant"].sum())
    tested = "no slice could be tested; "
    if found.tests:
        tested = f"{format_count(significant)} of {plural(found.tests, 'tested slice')} changed (Holm, {LEVEL:.0%}); "
    if not table["contribution_nats"].any():
        return f"no slice by {by} changed on average"
    largest = table.iloc[int(table["contribution_nats"].abs().to_numpy(float).argmax())]
    return (
        f"{tested}largest contribution by {by}: “{largest['group']}”, "
        f"{largest['contribution_nats']:+.4f} of {mean:+.4f} nats"
    )
