"""Finds documents of a run that are copies of others: by text, or by tokens if the run was made without its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

NUMBERED = "distinct_document(document)"  # SQL: the number of a document's text, from 0 in order of first appearance

# Two documents are copies if a, b and c are equal: a 64-bit hash and two numbers that differ for most other documents.
# Among a million documents, equal hashes of different texts are expected less than once in ten million runs. BY_TOKENS
# combines the hashes of tokens by xor and sum, which do not depend on the order of rows: it sorts nothing.
BY_TEXT = "SELECT document, hash(text) AS a, bytes AS b, tokens AS c FROM documents"
BY_TOKENS = """
    SELECT document, bit_xor(hash(token, token_id)) AS a, sum(hash(token_id, token)::HUGEINT) AS b, count(*) AS c
    FROM tokens GROUP BY document"""


@dataclass(frozen=True)
class Copies:
    """How many scored documents are identical to others.

    Attributes:
        documents: documents with scored tokens.
        distinct: number of different texts among them; in SQL, `NUMBERED` is the number of a document's text.
    """

    documents: int
    distinct: int


def number_texts(connection: duckdb.DuckDBPyConnection) -> Copies:
    """Count the different texts of a run, and define the SQL function that `NUMBERED` calls."""
    kept = connection.execute("SELECT count(*) FILTER (text IS NULL) = 0 FROM documents").fetchone()
    # Materialized: DuckDB joins rows with their minimum instead of a window, and would hash the run for both sides.
    connection.execute(f"""
        CREATE TABLE distinct_documents AS
        WITH hashes AS MATERIALIZED ({BY_TEXT if kept and kept[0] else BY_TOKENS})
        SELECT document AS owner, (dense_rank() OVER (ORDER BY first) - 1)::BIGINT AS number
        FROM (SELECT document, min(document) OVER (PARTITION BY a, b, c) AS first FROM hashes)""")
    connection.execute(
        "CREATE MACRO distinct_document(wanted) AS (SELECT number FROM distinct_documents WHERE owner = wanted)"
    )
    counts = connection.execute(f"SELECT count(*), count(DISTINCT {NUMBERED}) FROM documents WHERE scored_tokens > 0")
    documents, distinct = counts.fetchone() or (0, 0)
    return Copies(int(documents), int(distinct))
