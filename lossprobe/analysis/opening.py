"""Finds out whether the documents of a text open with the same tokens, as records of one template do."""

from __future__ import annotations

from lossprobe.run.copies import NUMBERED
from lossprobe.run.reader import Run
from lossprobe.units import plural

MOST_TOKENS = 8
FEWEST_DOCUMENTS = 10
MOST = 0.5


def opening_note(run: Run) -> str | None:
    """Return which share of the documents opens with the same tokens, where more than half of them do; else None.

    The opening is the longest one, looked for in the first 8 tokens, that more than half of the distinct documents
    share; control tokens such as a BOS do not count. Where it is one token without a loss of its own, as the first of
    a text without a BOS is, the first losses are of what follows it.
    """
    documents = run.copies.distinct
    if documents < FEWEST_DOCUMENTS:
        return None
    firsts = f"SELECT min(document) FROM documents WHERE scored_tokens > 0 GROUP BY {NUMBERED}"
    openings = f"""
        SELECT list(token_id ORDER BY token) AS ids, list(unscored IS NULL ORDER BY token) AS scored FROM tokens
        WHERE token < {MOST_TOKENS} AND unscored IS DISTINCT FROM 'special' AND document IN ({firsts})
        GROUP BY document"""
    majority = f"HAVING count(*) > {MOST * documents}"
    begins = run.query(f"SELECT ids[1] AS id, count(*) AS alike, max(len(ids)) AS longest FROM ({openings}) GROUP BY 1")
    counted = int(begins["longest"].max()) if len(begins) else 0
    begins = begins[begins["alike"] > MOST * documents]
    if not len(begins):
        return None
    counts = run.query(f"""
        SELECT size, count(*) AS alike, bool_or(list_contains(scored[1:size], TRUE)) AS scored
        FROM ({openings}), range(1, {MOST_TOKENS} + 1) AS sizes(size)
        WHERE len(ids) >= size AND ids[1] = {int(begins["id"].iloc[0])}
        GROUP BY size, list_slice(ids, 1, size) {majority} ORDER BY size""")
    size, alike = (int(counts[name].iloc[-1]) for name in ("size", "alike"))
    tokens = "token" if size == 1 else f"{size} tokens"
    if size == counted >= MOST_TOKENS - 1:  # with a BOS they are one less
        tokens += " or more"
    losses = "losses at the first positions are those of this opening"
    if not bool(counts["scored"].iloc[-1]):
        losses = "it has no loss, and the first losses are of what follows it"
    return f"{alike / documents:.0%} of {plural(documents, 'document')} open with the same {tokens}: {losses}"
