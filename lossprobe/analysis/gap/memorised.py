"""Documents that a model knows by heart: a loss near zero over all of their text."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from lossprobe.analysis.rows.fields import with_records
from lossprobe.run.reader import Run
from lossprobe.units import visible

MEMORISED_NATS = 0.1  # mean loss below which a document counts as memorised: a probability of 90 % a token
MEMORISED_TOKENS = 32  # fewest scored tokens of a document that is judged: a short one may be a stock phrase
LISTED = 10
BEGINS = 60  # characters shown of a document


@dataclass(frozen=True)
class MemorisedDocuments:
    """Documents with a mean loss below 0.1 nats per token, among those with at least 32 scored tokens.

    Attributes:
        documents: how many are memorised, and `tokens` their scored tokens.
        judged_documents: how many have enough tokens; `short_documents` have fewer.
        share_of_documents: memorised / judged documents; None without a judged one.
        share_of_tokens: their part of the judged documents' scored tokens; None likewise.
        table: the first ten, lowest loss first: document, source, line, tokens, mean_loss_nats, begins, and
            record_id and record_source where records have the fields id and source.
    """

    documents: int
    tokens: int
    judged_documents: int
    short_documents: int
    share_of_documents: float | None
    share_of_tokens: float | None
    table: pd.DataFrame = field(repr=False)


def find_memorised(run: Run) -> MemorisedDocuments:
    """Return the documents that a model knows by heart: see `MemorisedDocuments`."""
    long, known = f"scored >= {MEMORISED_TOKENS}", f"scored >= {MEMORISED_TOKENS} AND mean_loss_nats < {MEMORISED_NATS}"
    per_document = """(
        SELECT document, count(*) AS scored, avg(loss_nats::DOUBLE) AS mean_loss_nats
        FROM tokens WHERE unscored IS NULL GROUP BY document)"""
    totals = run.query(f"""
        SELECT count(*) FILTER ({known}) AS documents, coalesce(sum(scored) FILTER ({known}), 0)::BIGINT AS tokens,
               count(*) FILTER ({long}) AS judged, coalesce(sum(scored) FILTER ({long}), 0)::BIGINT AS judged_tokens,
               count(*) FILTER (NOT {long}) AS short
        FROM {per_document}""").iloc[0]
    documents, tokens, judged, judged_tokens, short = (int(total) for total in totals)
    table = run.query(f"""
        SELECT document, source, line, scored AS tokens, mean_loss_nats, left(text, {BEGINS}) AS begins
        FROM documents JOIN {per_document} USING (document)
        WHERE {known} ORDER BY mean_loss_nats, document LIMIT {LISTED}""")
    table["source"] = [visible(source) for source in table["source"]]
    table["begins"] = [visible(text, BEGINS) if isinstance(text, str) else "" for text in table["begins"]]
    table = with_records(run, table)
    return MemorisedDocuments(
        documents=documents,
        tokens=tokens,
        judged_documents=judged,
        short_documents=short,
        share_of_documents=documents / judged if judged else None,
        share_of_tokens=tokens / judged_tokens if judged else None,
        table=table,
    )
