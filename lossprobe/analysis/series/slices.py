"""The slices of a series: which one each token belongs to, and what its interval resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import find_clusters, present_clusters
from lossprobe.analysis.rows.fields import is_label, label_sql, label_values
from lossprobe.analysis.rows.paired import Ints, PairedRows
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
from lossprobe.analysis.stats.resampling import at_most
from lossprobe.run.reader import Run
from lossprobe.run.texts import load_vocabulary
from lossprobe.units import visible_bytes

MOST_CELLS = 1 << 20  # slices times clusters, summed for each checkpoint: 8 MB a checkpoint


@dataclass(frozen=True)
class SeriesSlices:
    """Slices of the tokens, and cells that sums are kept in: each belongs to one slice and one cluster.

    Attributes:
        names: one row a slice: `group`, and what names it beside that.
        clusters: what the intervals of the whole text resample.
        read: the clusters to read rows with; they are `clusters`, or finer ones.
        columns: what must be read of each row: name → SQL over `tokens`.
        keyed: gives each row the number of its slice.
        group_of: int64 [C], the slice of each cell.
        cluster_of: int64 [C], the cluster of each cell, from 0 on.
        merged: how many clusters a slice keeps apart where it may hold tokens of all; None where each read cluster
            lies in one slice and is a cell.
        present: int64 [R], the names of the read clusters, in order.
        cluster_of_read: int64 [R], the cluster of `clusters` of each read cluster, from 0 on.
        cluster_names: int64 [G], the name of each cluster of `clusters`, as its SQL gives it.
    """

    names: pd.DataFrame = field(repr=False)
    clusters: Clusters
    read: Clusters
    columns: Mapping[str, str]
    keyed: Callable[[Iterator[PairedRows]], Keyed] = field(repr=False)
    group_of: Ints = field(repr=False)
    cluster_of: Ints = field(repr=False)
    merged: int | None
    present: Ints = field(repr=False)
    cluster_of_read: Ints = field(repr=False)
    cluster_names: Ints = field(repr=False)

    def place(self, rows: PairedRows, group: Ints) -> tuple[Ints, Ints]:
        """Return the cluster and the cell of each row, int64 [n]."""
        read = np.searchsorted(self.present, rows.cluster)
        cluster = self.cluster_of_read[read]
        return cluster, read if self.merged is None else group * self.merged + cluster % self.merged


def find_slices(run: Run, by: str | None) -> SeriesSlices:
    """Return the slices of the tokens of a run.

    Args:
        run: the run; all runs of a series have the same tokens.
        by: None or "token" for a single slice; "type", "document", "context", "class", "frequency", or a field of JSONL
            records, or of conversations role, turn or part.

    Raises:
        UsageError: no document has that field.
    """
    if by in (None, "token"):
        return _spread(run, pd.DataFrame({"group": ["all tokens"]}), lambda rows: np.zeros(len(rows.token), np.int64))
    known = {"type": _types, "context": _contexts, "class": _classes, "frequency": _frequencies}
    if by in known:
        return known[by](run)
    return _labels(run, str(by)) if is_label(run, str(by)) else _documents(run, None if by == "document" else by)


def _spread(
    run: Run, names: pd.DataFrame, number: Callable[[PairedRows], Ints], columns: Mapping[str, str] | None = None
) -> SeriesSlices:
    """Return slices that may each hold tokens of all clusters, numbered by a function of the rows."""
    return _spread_keyed(run, names, lambda batches: ((rows, number(rows)) for rows in batches), columns)


def _spread_keyed(
    run: Run,
    names: pd.DataFrame,
    keyed: Callable[[Iterator[PairedRows]], Keyed],
    columns: Mapping[str, str] | None = None,
) -> SeriesSlices:
    clusters = at_most(find_clusters(run))
    present = present_clusters(run, clusters)
    merged = min(len(present), max(2, MOST_CELLS // max(1, len(names))))
    group_of, cluster_of = np.divmod(np.arange(len(names) * merged), merged)
    whole = np.arange(len(present))
    return SeriesSlices(
        names, clusters, clusters, columns or {}, keyed, group_of, cluster_of, merged, present, whole, present
    )


def _types(run: Run) -> SeriesSlices:
    ids = run.query("SELECT DISTINCT token_id FROM tokens WHERE unscored IS NULL ORDER BY 1")["token_id"].to_numpy()
    entries = load_vocabulary(run).entries
    names = pd.DataFrame(
        {"token_id": ids.astype(np.int64), "group": [visible_bytes(entries[index]) for index in ids.tolist()]}
    )
    return _spread(run, names, lambda rows: np.searchsorted(ids, rows.token_id))


def _contexts(run: Run) -> SeriesSlices:
    names = pd.DataFrame({"group": [octave_name(key, max(run.context, 2**key)) for key in range(OCTAVES)]})
    return _spread(run, names, lambda rows: octaves(rows.values["context"][0]), {"context": "context"})


def _classes(run: Run) -> SeriesSlices:
    """Return the combinations of occurrence and form; `groups.partitions` adds them up to either."""
    pairs = [(occurrence, form) for occurrence in OCCURRENCES for form in FORMS]
    names = pd.DataFrame(pairs, columns=["occurrence", "form"])
    return _spread_keyed(run, names, lambda batches: with_classes(run, batches))


def _frequencies(run: Run) -> SeriesSlices:
    """Return slices by how often the token is scored in the whole text: 1-9, 10-99 and so on."""
    number = frequency_numbers(run)
    return _spread(run, pd.DataFrame({"group": FREQUENCIES}), lambda rows: number[rows.token_id])


def _labels(run: Run, name: str) -> SeriesSlices:
    """Return the slices by role, turn or part of conversations; a document has tokens of several.

    Documents that are the same up to the end of a slice are one cluster of it, such as those with one system prompt.
    """
    values = label_values(run, name)
    listed = ", ".join(f"'{value.replace(chr(39), 2 * chr(39))}'" for value in values)
    code = f"list_position([{listed}], {label_sql(name)}) - 1"
    names = pd.DataFrame({"group": values})
    slices = _spread(run, names, lambda rows: rows.values["code"][0].astype(np.int64), {"code": code})
    if slices.merged == len(slices.present) and keeps_documents(run, slices.clusters):
        group, one, other = label_copies(run, name, values, slices.clusters)
        slices.cluster_of[group * slices.merged + one] = other
    return slices


def _documents(run: Run, name: str | None) -> SeriesSlices:
    """Return the slices by document, or by the text of a field: each holds whole documents."""
    clusters = find_clusters(run)
    parts, owners = document_owners(run, name, clusters)
    group_of, values = pd.factorize(owners["field"], sort=True)
    cluster_of, cluster_names = pd.factorize(owners["cluster"].to_numpy(np.int64), sort=True)
    names = pd.DataFrame({"group": [str(value) for value in values]})
    names = described_documents(run, names) if name is None else names
    present = owners["part"].to_numpy(np.int64)

    def keyed(batches: Iterator[PairedRows]) -> Keyed:
        return ((rows, group_of[np.searchsorted(present, rows.cluster)]) for rows in batches)

    return SeriesSlices(
        names, clusters, parts, {}, keyed, group_of.astype(np.int64), cluster_of.astype(np.int64), None, present,
        cluster_of.astype(np.int64), cluster_names,
    )  # fmt: skip
