"""Puts the text of each token into streamed rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from lossprobe.run.texts import DocumentTexts, Readable, load_vocabulary
from lossprobe.units import token_literal


def with_text_literals(run: Readable, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of rows with the column `text`, a JSON string literal, before `token_id`.

    Args:
        run: the run of the rows.
        batches: rows in text order, with `document`, `byte_start`, `byte_stop` and `token_id`.
    """
    vocabulary = load_vocabulary(run)
    texts = DocumentTexts(run)
    for batch in batches:
        documents, *rows = (batch[name].to_pylist() for name in ("document", "byte_start", "byte_stop", "token_id"))
        literals = [
            token_literal(vocabulary.covered(data, start, stop, index))
            for data, start, stop, index in zip(texts.along(documents), *rows, strict=True)
        ]
        arrays, names = batch.columns, batch.schema.names
        at = names.index("token_id")
        arrays.insert(at, pa.array(literals, pa.string()))
        names.insert(at, "text")
        yield pa.RecordBatch.from_arrays(arrays, names=names)
