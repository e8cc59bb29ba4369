"""Calibration of slices of a run: by context, document, field, or by what the model expected.

A calibrated model has no gap in any slice that is chosen by what is known before the token comes: its context, its
document, the model's own first choice. A slice chosen by the token that came is another matter: where newlines came, a
model that had half expected one was right more often than it was sure. So classes and frequencies are those of the
first choice, and the few slices by target that people ask for are marked as such.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.calibration.slice_measures import slice_measures, with_errors
from lossprobe.analysis.rows.clusters import find_clusters, slice_clusters, slice_notes
from lossprobe.analysis.rows.fields import field_source, is_label, label_order, with_records
from lossprobe.analysis.rows.outcomes import OUTCOMES, outcome_sums
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.octaves import octave_name, octave_sql
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

TARGETS = ("end of text", "special", "newline")  # in the order of `FORMS`
MOST_CLUSTERS = 10_000  # of one slice, where every slice may hold tokens of every document
MANY_SLICES = 20
CONDITIONS = {"context": "context", "document": "document", "frequency": "prediction"}  # of `by`; any other is a field
CALIBRATION_COLUMNS = ("gap_z", "excess_z", "ece", "ece_noise_floor")  # say how far from calibrated, so not by target
COLUMNS = (
    "group", "conditioned_on", "count", "clusters", "mean_loss_nats", "accuracy", "mean_confidence", "confidence_gap",
    "low", "high", "gap_z", "nll_minus_entropy_nats", "excess_z", "ece", "ece_noise_floor", "brier",
)  # fmt: skip

CLASS_NOTES = (
    "classes of the first choice: known before the token, so that a calibrated model has no gap in any, unless it is a "
    "special token (end of text among them) that the text never holds",
    "rows by target (end of text, special, newline): chosen by the outcome, so that their gaps are not zero even for a "
    "perfectly calibrated model, and no z or calibration error is given; read accuracy as recall and mean_confidence "
    "as how sure the model was there, and compare models with each other",
    "special tokens are targets only where the text itself holds them: a BOS is never scored, and no end of text is "
    "added after a document, so that a first choice of it is wrong wherever the text holds none",
)
BY_CHOICE_NOTE = (
    "by the first choice, not by the target: a slice by target is chosen by the outcome, and its gap is not zero even "
    "for a perfectly calibrated model"
)
ELSEWHERE_NOTE = (
    "occurrences are counted in the other {unit}s: a count with the token itself in it would be chosen by the outcome "
    "too, since a first choice that comes nowhere is never right"
)
ALONE_NOTE = "occurrences are counted without the token itself: with it, they would be chosen by the outcome too"
REPEATS_NOTE = "one document: what came once comes again, so that small gaps of rare first choices mean little"


@dataclass(frozen=True)
class Slices:
    """The calibration of parts of a run.

    Attributes:
        by: "context", "document", "class", "frequency", or a field of the JSONL records.
        table: one row per slice. By context and frequency in ascending order, by class in the order of `FORMS` and rows
            by target last, else the largest first. Columns:
            group (context in octaves: "1", "2-3", "4-7", …, the last up to the run's own; a document's number; a
            field's text, empty without it; a class; how often the first choice occurs as a scored token in the other
            documents, or blocks, or without either beside the token itself: "0", "1-9", "10-99", …),
            by document source and line of the file, and record_id and record_source where records have the fields id
            and source,
            conditioned_on (what chose the slice: "context", "document", "field", "prediction" or "target"),
            count (tokens), clusters (documents, or blocks of a single document, that hold some; over 10,000 are merged
            into so many, but not by document or field),
            mean_loss_nats, accuracy, mean_confidence (of the first choice),
            confidence_gap (mean_confidence − accuracy, positive when over-confident), low, high (its 95 % jackknife-t
            interval; NaN with fewer than two clusters),
            gap_z (Σ(x − o) / √Σx(1 − x), standard normal under calibration), nll_minus_entropy_nats (positive when
            over-confident), excess_z (Σ(n − H) / √ΣW, likewise), ece (15 equal-width bins), ece_noise_floor (the ECE to
            expect of a calibrated model with these confidences), brier (over the vocabulary).
            NaN where a number cannot be given: gap_z and excess_z where every prediction is certain; these, ece and
            ece_noise_floor by target; all of them where the count is 0.
        notes: what a reader must know, one line each.
    """

    by: str
    table: pd.DataFrame = field(repr=False)
    notes: list[str]


def calibrate_slices(run: Run, by: str) -> Slices:
    """Return the calibration of the slices of a run.

    Args:
        run: the run.
        by: "context", "document", "class", "frequency", or a field of the JSONL records.

    Raises:
        UsageError: no document has that field.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    clusters = slice_clusters(run, by) if is_label(run, by) else find_clusters(run)
    notes = [clusters.note] if clusters.note else []
    if by == "context":
        table = _measured(run, at_most(clusters, MOST_CLUSTERS), octave_sql("context"), "tokens")
        table["group"] = [octave_name(key, run.context) for key in table["key"]]
    elif by == "class":
        table = _classes(run, at_most(clusters, MOST_CLUSTERS))
        notes += CLASS_NOTES
    elif by == "frequency":
        table = _frequencies(run, clusters)
        notes += _frequency_notes(clusters)
    else:
        key, source = ("document", "tokens") if by == "document" else ("field", field_source(run, by))
        table = _measured(run, clusters, key, source).sort_values(["count", "key"], ascending=[False, True])
        if by == "turn" and is_label(run, by):
            table = table.sort_values("key", key=lambda turns: turns.map(label_order))
        table["group"] = table["key"].astype(str)
        notes += slice_notes(run, by)
    if by != "class":
        table["conditioned_on"] = CONDITIONS.get(by, "field")
    table = table.reset_index(drop=True)[list(COLUMNS)]
    if by == "document":
        numbered = table.assign(group=table["group"].astype(np.int32)).rename(columns={"group": "document"})
        table = with_records(run, numbered).rename(columns={"document": "group"}).astype({"group": str})
    return Slices(by, table, notes + _table_notes(table, clusters))


def _classes(run: Run, clusters: Clusters) -> pd.DataFrame:
    """Return slices by the class of the first choice, and by the classes in `TARGETS` of the token that came."""
    chosen = ", ".join(f"'{name}'" for name in TARGETS)
    both = f"predicted_form || '/' || CASE WHEN form IN ({chosen}) THEN form ELSE '' END"  # one scan for both
    sums = outcome_sums(run, clusters, both, class_source())
    sums[["predicted", "target"]] = sums["key"].str.split("/", expand=True).to_numpy().reshape(-1, 2)
    parts = []
    for kind, names in (("predicted", FORMS), ("target", TARGETS)):
        part = sums.groupby([kind, "cluster"], as_index=False)[list(OUTCOMES)].sum().rename(columns={kind: "key"})
        parts.append(slice_measures(part).set_index("key").reindex(names))
    prediction, target = (part.rename_axis("key").reset_index() for part in parts)
    prediction = with_errors(prediction, run, "predicted_form", class_source())
    target[["count", "clusters"]] = target[["count", "clusters"]].fillna(0).astype(np.int64)
    target[list(CALIBRATION_COLUMNS)] = np.nan
    tables = [prediction.assign(conditioned_on="prediction"), target.assign(conditioned_on="target")]
    table = pd.concat(tables, ignore_index=True).astype({"count": np.int64, "clusters": np.int64})
    return table.assign(group=table["key"])


def _frequencies(run: Run, clusters: Clusters) -> pd.DataFrame:
    """Return slices by how often the first choice occurs outside the token's cluster.

    A count over the whole text would hold the outcome: a first choice that occurs nowhere is never right. So would a
    count in the same document, where what came once comes again. What is left is that two documents choose each
    other's slices: where tokens are few, the z of a calibrated model has a standard deviation of about 1.1.
    """
    counts = "SELECT token_id, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY token_id"
    if clusters.count > 1:
        join = f"""LEFT JOIN (
            SELECT token_id, {clusters.sql} AS cluster, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY ALL
            ) AS own ON top_id = own.token_id AND {clusters.sql} = own.cluster"""
        here = "coalesce(own.n, 0)"
    else:
        join, here = "", f"coalesce(top_id = tokens.token_id, FALSE)::INTEGER * {run.copies.documents}"
    source = f"""(
        SELECT tokens.*, coalesce(everywhere.n, 0) - {here} AS elsewhere
        FROM tokens LEFT JOIN ({counts}) AS everywhere ON top_id = everywhere.token_id {join})"""
    digits = "CASE WHEN elsewhere > 0 THEN length(elsewhere::VARCHAR) ELSE 0 END"
    table = _measured(run, at_most(clusters, MOST_CLUSTERS), digits, source)
    table["group"] = [_span(10 ** (key - 1), 10**key - 1) if key else "0" for key in table["key"]]
    return table


def _frequency_notes(clusters: Clusters) -> list[str]:
    counted = ELSEWHERE_NOTE.format(unit=clusters.unit) if clusters.count > 1 else ALONE_NOTE
    return [BY_CHOICE_NOTE, counted] + ([REPEATS_NOTE] if clusters.unit == "block" else [])


def _measured(run: Run, clusters: Clusters, key: str, source: str) -> pd.DataFrame:
    """Return the measures of every slice, in the order of its `key`."""
    return with_errors(slice_measures(outcome_sums(run, clusters, key, source)), run, key, source)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _table_notes(table: pd.DataFrame, clusters: Clusters) -> list[str]:
    """Return notes on numbers that could not be given, and on how many slices stand out by chance."""
    notes = []
    single = int((table["clusters"] == 1).sum())
    if clusters.count > 1 and single:
        what = plural(single, "slice")
        notes.append(f"{what} with tokens of a single {clusters.unit}: no interval can be given, read gap_z")
    tested = table[table["conditioned_on"] != "target"]
    if tested[["gap_z", "excess_z"]].isna().any(axis=None):
        notes.append("gap_z, excess_z: n/a where every prediction is certain")
    if len(tested) > MANY_SLICES:
        by_chance = format_count(round(0.05 * len(tested)))
        notes.append(f"of {plural(len(tested), 'slice')}, about {by_chance} have |gap_z| > 1.96 by chance alone")
    return notes
