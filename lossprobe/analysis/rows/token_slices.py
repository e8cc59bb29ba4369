"""Which slice each row belongs to, of runs that are read side by side: by class, or by whole documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import present_clusters
from lossprobe.analysis.rows.fields import field_source, with_records
from lossprobe.analysis.rows.paired import Ints, PairedRows
from lossprobe.analysis.rows.token_classes import FORMS, class_source
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.errors import OutputError
from lossprobe.run.reader import Run
from lossprobe.run.shown import shown_run
from lossprobe.units import visible

OCCURRENCES = ("first", "repeat")
TOKEN_BITS = 32  # of a place (document, token) in one int64
RANGE_TOKENS = 1 << 20

MOST_DIGITS = 12  # of a count of occurrences
FREQUENCIES = [f"{10**power}-{10 ** (power + 1) - 1}" for power in range(MOST_DIGITS)]

Keyed = Iterator[tuple[PairedRows, Ints]]  # rows, and the number of the slice of each from 0 on


def single_documents(clusters: Clusters) -> Clusters:
    """Return the parts that belong to one document and one cluster each."""
    if clusters.unit == "document":
        return replace(clusters, sql="document")
    return replace(clusters, sql=f"document::BIGINT * {clusters.count} + {clusters.sql}")


def document_owners(run: Run, name: str | None, clusters: Clusters) -> tuple[Clusters, pd.DataFrame]:
    """Return the parts of `single_documents` and whose each is, for slices by document or by the text of a field.

    Args:
        run: the run.
        name: the field; None for slices by document.
        clusters: those of the run, not merged.

    Returns:
        The parts, and one row for each that has a loss, in order: `part`, `field` (or the document), `cluster`.
    """
    parts = single_documents(clusters)
    source = "(SELECT *, document AS field FROM tokens)" if name is None else field_source(run, name)
    return parts, run.query(f"""
        SELECT DISTINCT {parts.sql} AS part, field, {clusters.sql} AS cluster FROM {source} WHERE unscored IS NULL
        ORDER BY 1""")


def described_documents(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table by document with the file, the line and the beginning of each."""
    table["document"] = table["group"].astype(np.int32)
    found = run.query("SELECT document, source, line, left(text, 60) AS begins FROM documents")
    table = table.merge(found, on="document", how="left", validate="one_to_one")
    table["source"] = [visible(source) for source in table["source"]]
    table["begins"] = [visible(text, 60) if isinstance(text, str) else "" for text in table["begins"]]
    return with_records(run, table)


def frequency_numbers(run: Run) -> Ints:
    """Return the place in `FREQUENCIES` of every vocabulary entry up to the largest that is scored, int64 [V].

    An entry's frequency is how often it is scored in the whole text.
    """
    counts = run.query("SELECT token_id, count(*) AS n FROM tokens WHERE unscored IS NULL GROUP BY token_id")
    digits = np.ones(int(counts["token_id"].max()) + 1, np.int64)
    digits[counts["token_id"]] = np.minimum([len(str(n)) for n in counts["n"]], MOST_DIGITS)
    return digits - 1


def keeps_documents(run: Run, clusters: Clusters) -> bool:
    """Return whether each distinct document is a cluster of its own, so that copies within a slice can be told."""
    return clusters.unit == "document" and clusters.count == run.copies.distinct


def label_copies(run: Run, label: str, names: Sequence[str], clusters: Clusters) -> tuple[Ints, Ints, Ints]:
    """Return where conversations are the same up to the end of a slice, so that its tokens there say nothing new.

    Args:
        run: a run of conversations.
        label: role, turn or part.
        names: the texts of the label, which name the slices.
        clusters: what intervals resample, as `keeps_documents` says.

    Returns:
        slice, cluster and the first cluster that is the same, int64 [n] each; clusters count from 0 on in the order of
        `clusters.present_clusters`.
    """
    owners = f"SELECT DISTINCT document AS copy, {clusters.sql} AS owner FROM tokens"
    copies = run.query(f"""
        SELECT DISTINCT field, {clusters.sql} AS cluster, owner
        FROM {field_source(run, label)} JOIN ({owners}) USING (copy) WHERE unscored IS NULL AND owner <> cluster""")
    group = np.array([names.index(value) for value in copies["field"]], np.int64)
    present = present_clusters(run, clusters)
    one, other = (np.searchsorted(present, copies[column].to_numpy(np.int64)) for column in ("cluster", "owner"))
    return group, one.astype(np.int64), other.astype(np.int64)


def with_classes(run: Run, batches: Iterator[PairedRows]) -> Keyed:
    """Yield rows with the number of their class, occurrence first; classes are read beside them, in the same order.

    Raises:
        OutputError: a row has no class, since its id is missing from the stored vocabulary.
    """
    occurrence, form = (
        f"list_position([{', '.join(repr(one) for one in names)}], {kind})"
        for kind, names in (("occurrence", OCCURRENCES), ("form", FORMS))
    )
    code = f"({occurrence} - 1) * {len(FORMS)} + {form} - 1"
    stream = (
        batch
        for first, last in document_ranges(run)
        for batch in run.batches(f"""
            SELECT document::BIGINT << {TOKEN_BITS} | token AS place, {code} AS code
            FROM {class_source(f"document BETWEEN {first} AND {last}")} WHERE unscored IS NULL ORDER BY place""")
    )
    places, codes = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for rows in batches:
        wanted = rows.document.astype(np.int64) << TOKEN_BITS | rows.token
        while len(wanted) and (not len(places) or places[-1] < wanted[-1]):
            batch = next(stream, None)
            if batch is None:
                break
            places = np.concatenate([places, batch.column("place").to_numpy()])
            codes = np.concatenate([codes, batch.column("code").to_numpy()])
        at = np.searchsorted(places, wanted)
        if not np.array_equal(places[np.minimum(at, len(places) - 1)], wanted):
            raise OutputError(
                "run.damaged",
                f"{shown_run(run.path)}: a token's id is missing from the stored vocabulary",
                hint="check it with lossprobe verify",
            )
        yield rows, codes[at]
        if len(at):
            places, codes = places[at[-1] :], codes[at[-1] :]


def document_ranges(run: Run) -> list[tuple[int, int]]:
    """Return the first and last number of consecutive documents of about `RANGE_TOKENS` tokens, at least one each.

    What sorts the tokens of whole documents needs memory for one such range only.
    """
    frame = run.query("SELECT document, tokens FROM documents ORDER BY document")
    number = frame["tokens"].cumsum().to_numpy(np.int64) // RANGE_TOKENS
    groups = frame["document"].groupby(number)
    return list(zip(groups.min().tolist(), groups.max().tolist(), strict=True))
