"""What intervals resample: distinct documents, or blocks of tokens in a single one; never single tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.rows.fields import is_label, label_order, label_source
from lossprobe.analysis.stats.jackknife import Clusters, t_quantile
from lossprobe.run.copies import NUMBERED
from lossprobe.run.reader import Run
from lossprobe.units import format_count, plural

if TYPE_CHECKING:
    import pandas as pd

BLOCK_TOKENS = 4096
TOLD = 3  # slices that a note names
# Sums of groups and clusters, each with those of its group. DuckDB itself makes the join of the windows where the sums
# are of plain rows, but computes them for each side of it. Of other rows it leaves the windows, whose order of adding
# up, and with it the last digit, is another one than that of a join.
WITH_TOTALS = """WITH totals AS (
    SELECT *, sum(s) OVER (PARTITION BY key) AS s_all, sum(n) OVER (PARTITION BY key) AS n_all FROM ({}))"""
WITH_TOTALS_BY_JOIN = """WITH sums AS MATERIALIZED ({}), totals AS (
    SELECT sums.*, s_all, n_all FROM sums
    JOIN (SELECT key, sum(s) AS s_all, sum(n) AS n_all FROM sums GROUP BY key) AS whole
    ON sums.key IS NOT DISTINCT FROM whole.key)"""


def find_clusters(run: Run) -> Clusters:
    """Return the clusters of a run: its distinct documents, or in a single one contiguous blocks of tokens.

    All copies of a text are one cluster: they say no more than one of them. A block has 4,096 tokens; the last one
    takes what is left over, so that none is shorter.
    """
    documents = document_clusters(run)
    if documents.count > 1:
        return documents
    whole = documents.note or "one document"
    tokens = int(run.scalar("SELECT max(token) + 1 FROM tokens WHERE unscored IS NULL"))
    sql = f"least(token // {BLOCK_TOKENS}, {max(0, tokens // BLOCK_TOKENS - 1)})"
    blocks = int(run.scalar(f"SELECT count(DISTINCT {sql}) FROM tokens WHERE unscored IS NULL"))
    if blocks > 1:
        note = (
            f"{whole}: intervals resample {blocks} blocks of {format_count(BLOCK_TOKENS)} tokens "
            "and are a lower bound; give documents (a folder, a JSONL, `split_documents`) for better ones"
        )
    else:
        note = f"{whole} of fewer than {format_count(2 * BLOCK_TOKENS)} tokens: no interval can be given"
    return Clusters("block", blocks, sql, note)


def document_clusters(run: Run) -> Clusters:
    """Return the distinct documents of a run as clusters, be it a single one."""
    documents, distinct = run.copies.documents, run.copies.distinct
    sql = "document" if documents == distinct else NUMBERED
    return Clusters("document", distinct, sql, copies_note(documents, distinct))


def present_clusters(run: Run, clusters: Clusters) -> npt.NDArray[np.int64]:
    """Return the names of clusters of `find_clusters`, merged or not, that hold scored tokens, int64 [G] in order."""
    rows = "documents WHERE scored_tokens > 0" if clusters.unit == "document" else "tokens WHERE unscored IS NULL"
    frame = run.query(f"SELECT DISTINCT {clusters.sql} AS cluster FROM {rows} ORDER BY 1")
    return frame["cluster"].to_numpy(np.int64)


def numbering(present: npt.NDArray[np.int64]) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    """Return what gives the place of each of n clusters among the present ones, from a table.

    >>> numbering(np.array([3, 5, 8]))(np.array([8, 3, 8])).tolist()
    [2, 0, 2]
    """
    table = np.zeros(int(present.max(initial=0)) + 1, np.int64)
    table[present] = np.arange(len(present))
    return table.take


def slice_clusters(run: Run, name: str) -> Clusters:
    """Return the clusters of slices by a field of the records, or by a label of the tokens of conversations.

    By a label, documents that are the same up to the end of a slice are one cluster of it; see `slice_notes`. The SQL
    is to be evaluated on `fields.field_source`.
    """
    documents = document_clusters(run)
    return replace(documents, sql="copy") if is_label(run, name) else documents


def slice_notes(run: Run, name: str) -> list[str]:
    """Return what a reader of intervals must know of slices by a label that are the same in several documents."""
    if not is_label(run, name):
        return []
    counts = run.query(f"""
        SELECT field, count(DISTINCT document) AS documents, count(DISTINCT copy) AS texts
        FROM {label_source(name)} WHERE unscored IS NULL GROUP BY field
        HAVING texts < count(DISTINCT {NUMBERED})""")
    found = sorted(counts.itertuples(index=False), key=lambda row: label_order(row[0]))
    more = [f"{name}: {plural(len(found) - TOLD, 'other')} with fewer texts than documents"] if found[TOLD:] else []
    return [slice_note(name, *row) for row in found[:TOLD]] + more


def slice_note(name: str, value: str, documents: int, texts: int) -> str:
    """Return what a reader of intervals must know of a slice that is the same in several documents.

    >>> slice_note("turn", "0", 80, 1)
    'turn 0: 1 text in all 80 documents, the same up to there, so that it has no interval'
    >>> slice_note("turn", "1", 80, 77)
    'turn 1: 77 different texts in 80 documents; its interval resamples these'
    """
    if texts == 1:
        same = f"{name} {value}: 1 text in all {format_count(documents)} documents, the same up to there"
        return f"{same}, so that it has no interval"
    different = f"{plural(texts, 'different text')} in {format_count(documents)} documents"
    return f"{name} {value}: {different}; its interval resamples these"


def copies_note(documents: int, distinct: int) -> str | None:
    """Return what a reader of intervals must know of copies among documents; None where there are none.

    >>> copies_note(44, 41), copies_note(3, 1)
    ('3 documents are identical to others; intervals resample the 41 distinct ones', '3 copies of one document')
    """
    copies = documents - distinct
    if not copies:
        return None
    if distinct == 1:
        return f"{format_count(documents)} copies of one document"
    identical = f"{plural(copies, 'document')} {'is' if copies == 1 else 'are'} identical to others"
    return f"{identical}; intervals resample the {format_count(distinct)} distinct ones"


def copies_per_token(run: Run, source: str = "tokens", where: str = "unscored IS NULL") -> float:
    """Return how often the same token of the same text is there, on average over the tokens: 1 without copies.

    Copies have the same losses, so that N tokens of which each is there k times vary as N / k independent ones do.
    Where texts are there unequally often, Σ k² / Σ k over the different tokens takes the place of k: the variance of a
    weighted mean (Kish 1965, Survey Sampling, §11.7).

    Args:
        run: the run.
        source: SQL relation with `document` and what the condition needs.
        where: SQL condition on its rows.
    """
    if run.copies.documents == run.copies.distinct:
        return 1.0
    mean = run.scalar(f"""
        SELECT sum(rows * documents) / sum(rows) FROM (
            SELECT count(*)::DOUBLE AS rows, count(DISTINCT document) AS documents
            FROM {source} WHERE {where} GROUP BY {NUMBERED})""")
    return 1.0 if mean is None else float(mean)


def text_numbers(run: Run) -> npt.NDArray[np.int64]:
    """Return the number of every document's text, int64 [D] in order; copies have the same one."""
    if run.copies.documents == run.copies.distinct:
        return np.arange(run.counts["documents"])
    frame = run.query(f"SELECT {NUMBERED} AS number FROM documents ORDER BY document")
    return frame["number"].to_numpy(np.int64)


def grouped_losses(
    run: Run, clusters: Clusters, group: str, source: str = "tokens", where: str = "TRUE"
) -> pd.DataFrame:
    """Return the mean loss of every group with its interval, computed out of core.

    Args:
        run: the run.
        clusters: what the intervals resample.
        group: SQL expression over `source` that names a row's group.
        source: SQL relation with the columns of `tokens`; only scored rows are read.
        where: SQL condition on its rows.

    Returns:
        One row per group in order: `key`, `count` (tokens), `total_nats`, `mean_loss_nats`, `low`, `high` (NaN with
        fewer than two clusters), `clusters`.
    """
    sums = f"""
        SELECT {group} AS key, {clusters.sql} AS cluster, sum(loss_nats::DOUBLE) AS s, count(*) AS n
        FROM {source} WHERE unscored IS NULL AND {where} GROUP BY ALL"""
    plain = source == "tokens" and NUMBERED not in clusters.sql
    frame = run.query(f"""
        {WITH_TOTALS_BY_JOIN.format(sums) if plain else WITH_TOTALS.format(sums)}
        SELECT key, any_value(n_all)::BIGINT AS count, any_value(s_all) AS total_nats, count(*) AS clusters,
               var_pop(CASE WHEN n_all > n THEN (s_all - s) / (n_all - n) END) AS variance
        FROM totals GROUP BY key ORDER BY key""")
    frame["mean_loss_nats"] = frame["total_nats"] / frame["count"]
    error = np.sqrt((frame["clusters"] - 1) * frame["variance"].astype(float))
    frame["low"] = frame["mean_loss_nats"] - t_quantile(frame["clusters"]) * error
    frame["high"] = frame["mean_loss_nats"] + t_quantile(frame["clusters"]) * error
    return frame[["key", "count", "total_nats", "mean_loss_nats", "low", "high", "clusters"]]
