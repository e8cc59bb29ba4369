"""What the intervals of a run resample: documents, or blocks of tokens in a single document; never single tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lossprobe.analysis.stats.jackknife import Clusters, t_quantile
from lossprobe.run.reader import Run
from lossprobe.units import format_count

BLOCK_TOKENS = 4096


def find_clusters(run: Run) -> Clusters:
    """Return the clusters of a run: its documents, or in a single document contiguous blocks of tokens.

    A block has 4,096 tokens; the last one takes what is left over, so that none is shorter.
    """
    documents = int(run.scalar("SELECT count(*) FROM documents WHERE scored_tokens > 0"))
    if documents > 1:
        return Clusters("document", documents, "document", None)
    tokens = int(run.scalar("SELECT max(token) + 1 FROM tokens WHERE unscored IS NULL"))
    sql = f"least(token // {BLOCK_TOKENS}, {max(0, tokens // BLOCK_TOKENS - 1)})"
    blocks = int(run.scalar(f"SELECT count(DISTINCT {sql}) FROM tokens WHERE unscored IS NULL"))
    if blocks > 1:
        note = (
            f"one document: intervals resample {blocks} blocks of {format_count(BLOCK_TOKENS)} tokens "
            "and are a lower bound; give documents (a folder, a JSONL, `split_documents`) for better ones"
        )
    else:
        note = f"one document of fewer than {format_count(2 * BLOCK_TOKENS)} tokens: no interval can be given"
    return Clusters("block", blocks, sql, note)


def grouped_losses(run: Run, clusters: Clusters, group: str, source: str = "tokens") -> pd.DataFrame:
    """Return the mean loss of every group with its interval, computed out of core.

    Args:
        run: the run.
        clusters: what the intervals resample.
        group: SQL expression over `source` that names a row's group.
        source: SQL relation with the columns of `tokens`; only scored rows are read.

    Returns:
        One row per group in order: `key`, `count` (tokens), `total_nats`, `mean_loss_nats`, `low`, `high` (NaN with
        fewer than two clusters), `clusters`.
    """
    sums = f"""
        SELECT {group} AS key, {clusters.sql} AS cluster, sum(loss_nats::DOUBLE) AS s, count(*) AS n
        FROM {source} WHERE unscored IS NULL GROUP BY ALL"""
    totals = f"""
        SELECT *, sum(s) OVER (PARTITION BY key) AS s_all, sum(n) OVER (PARTITION BY key) AS n_all FROM ({sums})"""
    frame = run.query(f"""
        SELECT key, any_value(n_all)::BIGINT AS count, any_value(s_all) AS total_nats, count(*) AS clusters,
               var_pop(CASE WHEN n_all > n THEN (s_all - s) / (n_all - n) END) AS variance
        FROM ({totals}) GROUP BY key ORDER BY key""")
    frame["mean_loss_nats"] = frame["total_nats"] / frame["count"]
    error = np.sqrt((frame["clusters"] - 1) * frame["variance"].astype(float))
    frame["low"] = frame["mean_loss_nats"] - t_quantile(frame["clusters"]) * error
    frame["high"] = frame["mean_loss_nats"] + t_quantile(frame["clusters"]) * error
    return frame[["key", "count", "total_nats", "mean_loss_nats", "low", "high", "clusters"]]
