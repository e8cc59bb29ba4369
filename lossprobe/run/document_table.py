"""Writes the table of documents, a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lossprobe.run.new_file import NewFile
from lossprobe.run.plain_arrays import to_arrow
from lossprobe.run.schema import DOCUMENT_COLUMNS, arrow_schema

FLUSH_BYTES = 4 << 20


@contextmanager
def documents_table(target: NewFile) -> Iterator[DocumentsTable]:
    """Yield a table of documents that is written to a new file, and is whole when the block ends.

    The column of texts has no Parquet statistics: they would be copies of its first and last text in sorting order.
    """
    schema = arrow_schema(DOCUMENT_COLUMNS)
    options = {"compression": "zstd", "write_statistics": [name for name in schema.names if name != "text"]}
    with pq.ParquetWriter(target, schema, **options) as file:
        table = DocumentsTable(file, schema)
        yield table
        table.flush()


class DocumentsTable:
    """A table of documents that is being written; see `documents_table`."""

    def __init__(self, file: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._file = file
        self._schema = schema
        self._pending: list[dict[str, Any]] = []
        self._size = 0

    def add(self, record: dict[str, Any]) -> None:
        """Add the record of the next document."""
        self._pending.append(record)
        self._size += record["bytes"] + 200
        if self._size > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added, so that the next document begins a row group."""
        if self._pending:
            columns = [to_arrow([each[field.name] for each in self._pending], field.type) for field in self._schema]
            self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._pending, self._size = [], 0

    def append(self, file: pq.ParquetFile) -> None:
        """Add the row groups of another table of documents as they are."""
        for index in range(file.num_row_groups):
            self._file.write_table(file.read_row_group(index))
