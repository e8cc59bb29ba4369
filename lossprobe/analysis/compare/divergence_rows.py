"""The tokens of a stored pair, streamed: what both models made of each."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from lossprobe.analysis.rows.text_bytes import with_text_bytes
from lossprobe.run.pair import Pair
from lossprobe.run.schema import DIVERGENCES, LABELS

PLACES = ("document", "token", "token_id", "byte_start", "byte_stop", "context")


def divergence_batches(pair: Pair) -> Iterator[pa.RecordBatch]:
    """Yield every scored row of a pair in bounded memory.

    Columns: document, token, text (a JSON string literal), token_id, byte_start, byte_stop, context, those of
    `schema.DIVERGENCES`, first_top_id and second_top_id, and of conversations turn, role and part.
    """
    rows = pair.rows
    labels = [column.name for column in LABELS] if rows.labelled else []
    names = [*PLACES, *(column.name for column in DIVERGENCES), "first_top_id", "second_top_id", *labels]
    return with_text_bytes(rows, rows.batches(f"SELECT {', '.join(names)} FROM tokens WHERE unscored IS NULL"))
