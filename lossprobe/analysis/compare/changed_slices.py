"""How much each slice of the tokens changed from one run to another: sums of d per slice and cluster, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import find_clusters, numbering, present_clusters
from lossprobe.analysis.rows.differences import (
    TESTED_CLUSTERS,
    DifferenceSums,
    finite_batches,
    grouped_changes,
    mean_changes,
)
from lossprobe.analysis.rows.fields import is_label, label_sql, label_values
from lossprobe.analysis.rows.paired import PairedRows
from lossprobe.analysis.rows.token_classes import FORMS
from lossprobe.analysis.rows.token_slices import (
    FREQUENCIES,
    OCCURRENCES,
    Keyed,
    described_documents,
    document_owners,
    frequency_numbers,
    keeps_documents,
    label_copies,
    with_classes,
)
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.octaves import OCTAVES, octave_name, octaves
from lossprobe.analysis.stats.resampling import MAX_CLUSTERS, at_most
from lossprobe.analysis.stats.significance import LEVEL, holm
from lossprobe.run.reader import Run
from lossprobe.run.texts import load_vocabulary
from lossprobe.units import visible_bytes

MOST_CELLS = 1 << 23  # slices times clusters: 64 MB for each of two sums

Cut = tuple[pd.DataFrame, Clusters, int]  # `grouped_changes` with names, what was resampled, tokens left out


@dataclass(frozen=True)
class ChangedSlices:
    """The change of every slice.

    Attributes:
        table: one row per slice with tokens, see `changes.Changes`: `group`, what names it beside that, and the columns
            of `differences.grouped_changes` with `p_value` (NaN below `TESTED_CLUSTERS`), `p_holm` and `significant`.
        tests: how many p-values there are.
        clusters: what intervals resample, and into how many groups they are merged.
        left_out: tokens that only one of the runs scored.
    """

    table: pd.DataFrame = field(repr=False)
    tests: int
    clusters: Clusters
    left_out: int


def changed_slices(first: Run, second: Run, by: str) -> ChangedSlices:
    """Return the change of every slice, in a fixed order.

    Args:
        first: the run whose contexts, classes and clusters count.
        second: the other run.
        by: "type", "document", "context", "class", "frequency", a field of JSONL records, or of conversations role,
            turn or part.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
        UsageError: no document has that field.
    """
    cuts = {"type": _types, "context": _contexts, "class": _classes, "frequency": _frequencies}
    if by in cuts:
        table, clusters, left_out = cuts[by](first, second)
    elif is_label(first, by) and is_label(second, by):
        table, clusters, left_out = _labels(first, second, by)
    else:
        table, clusters, left_out = _documents(first, second, None if by == "document" else by)
    table["p_value"] = table["p_value"].where(table["clusters"] >= TESTED_CLUSTERS)
    table["p_holm"] = holm(table["p_value"].to_numpy(float))
    tested = table["p_holm"].notna()
    table["significant"] = (table["p_holm"] < LEVEL).astype("boolean").where(tested)  # missing where nothing was tested
    return ChangedSlices(table, int(table["p_value"].notna().sum()), clusters, left_out)


def _types(first: Run, second: Run) -> Cut:
    ids = first.query("SELECT DISTINCT token_id FROM tokens WHERE unscored IS NULL ORDER BY 1")["token_id"].to_numpy()
    clusters = _merged(first, len(ids))
    sums, left_out = _sums(
        (first, second),
        clusters,
        len(ids),
        lambda batches: ((rows, np.searchsorted(ids, rows.token_id)) for rows in batches),
    )
    table = mean_changes(sums.nats, sums.tokens)
    table["token_id"] = ids[table["key"]].astype(np.int64)
    entries = load_vocabulary(first).entries
    table["group"] = [visible_bytes(entries[int(index)]) for index in table["token_id"]]
    return table, clusters, left_out


def _contexts(first: Run, second: Run) -> Cut:
    clusters = _merged(first, OCTAVES)

    def keyed(batches: Iterator[PairedRows]) -> Keyed:
        return ((rows, octaves(rows.values["context"][0])) for rows in batches)

    sums, left_out = _sums((first, second), clusters, OCTAVES, keyed, context="context")
    table = mean_changes(sums.nats, sums.tokens)
    table["group"] = [octave_name(key, first.context) for key in table["key"].tolist()]
    return table, clusters, left_out


def _classes(first: Run, second: Run) -> Cut:
    """Return the slices of two partitions: by occurrence and by form; one pass sums their combinations."""
    clusters = _merged(first, len(OCCURRENCES) * len(FORMS))
    sums, left_out = _sums(
        (first, second), clusters, len(OCCURRENCES) * len(FORMS), lambda batches: with_classes(first, batches)
    )
    shape = (len(OCCURRENCES), len(FORMS), -1)
    tables = []
    for kind, names, axis in (("occurrence", OCCURRENCES, 1), ("form", FORMS, 0)):
        table = mean_changes(sums.nats.reshape(shape).sum(axis=axis), sums.tokens.reshape(shape).sum(axis=axis))
        tables.append(table.assign(kind=kind, group=[names[key] for key in table["key"]]))
    return pd.concat(tables, ignore_index=True), clusters, left_out


def _frequencies(first: Run, second: Run) -> Cut:
    """Return the slices by how often the token is scored in the whole text: 1-9, 10-99 and so on."""
    number = frequency_numbers(first)
    clusters = _merged(first, len(FREQUENCIES))
    sums, left_out = _sums(
        (first, second),
        clusters,
        len(FREQUENCIES),
        lambda batches: ((rows, number[rows.token_id]) for rows in batches),
    )
    table = mean_changes(sums.nats, sums.tokens)
    table["group"] = [FREQUENCIES[key] for key in table["key"]]
    return table, clusters, left_out


def _labels(first: Run, second: Run, name: str) -> Cut:
    """Return the slices by role, turn or part of conversations; a document has tokens of several."""
    names = label_values(first, name)
    clusters = _merged(first, len(names))
    listed = ", ".join(f"'{value.replace(chr(39), 2 * chr(39))}'" for value in names)

    def keyed(batches: Iterator[PairedRows]) -> Keyed:
        return ((rows, rows.values["code"][0].astype(np.int64)) for rows in batches)

    code = f"list_position([{listed}], {label_sql(name)}) - 1"
    sums, left_out = _sums((first, second), clusters, len(names), keyed, code=code)
    if keeps_documents(first, clusters):
        _count_copies_once(sums, first, name, names, clusters)
    table = mean_changes(sums.nats, sums.tokens)
    table["group"] = [names[key] for key in table["key"].tolist()]
    return table, clusters, left_out


def _count_copies_once(sums: DifferenceSums, run: Run, label: str, names: list[str], clusters: Clusters) -> None:
    """Add, in place, the sums of documents that are the same up to the end of a slice to those of the first of them."""
    group, one, other = label_copies(run, label, names, clusters)
    for values in (sums.nats, sums.tokens):
        np.add.at(values, (group, other), values[group, one])
        values[group, one] = 0


def _documents(first: Run, second: Run, name: str | None) -> Cut:
    """Return the slices by document, or by the text of a field: each holds whole documents, so that none are merged."""
    clusters = find_clusters(first)
    parts, owners = document_owners(first, name, clusters)
    sums, left_out = _sums((first, second), parts, 1, lambda batches: ((r, np.zeros_like(r.cluster)) for r in batches))
    codes, names = pd.factorize(owners["field"], sort=True)
    cells = owners.assign(code=codes, nats=sums.nats[0], tokens=sums.tokens[0])[sums.tokens[0] > 0]
    cells = cells.groupby(["code", "cluster"], as_index=False)[["nats", "tokens"]].sum()
    table = grouped_changes(*(cells[column].to_numpy() for column in ("code", "nats", "tokens")))
    table["group"] = [str(names[key]) for key in table["key"]]
    return described_documents(first, table) if name is None else table, clusters, left_out


def _merged(run: Run, groups: int) -> Clusters:
    """Return clusters for slices that may each hold tokens of all: merged, the more slices there are."""
    return at_most(find_clusters(run), max(2, min(MAX_CLUSTERS, MOST_CELLS // max(1, groups))))


def _sums(
    runs: tuple[Run, Run],
    clusters: Clusters,
    groups: int,
    keyed: Callable[[Iterator[PairedRows]], Keyed],
    **columns: str,
) -> tuple[DifferenceSums, int]:
    """Return the sums of d by slice and cluster, and how many tokens only one run scored."""
    present = present_clusters(runs[0], clusters)
    number, sums, left_out = numbering(present), DifferenceSums((groups, len(present))), 0
    for rows, group in keyed(finite_batches(runs, {"nats": "loss_nats", **columns}, clusters)):
        losses = rows.values["nats"]
        sums.add(group, number(rows.cluster), losses[1] - losses[0])
        left_out += rows.left_out
    return sums, left_out
