"""Writes Arrow batches as CSV by compiled loops, while the next batch is read; the bytes are those of `csv`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.report.formats import cell_bytes

ROWS = 4096  # written at a time, so that their numbers stay in the processor's cache
WHOLE = {pa.int8(): "i1", pa.int16(): "i2", pa.int32(): "i4", pa.int64(): "i8"}  # Arrow's type → numpy's
STRINGS = (pa.string(), pa.large_string())


def are_written(schema: pa.Schema) -> bool:
    """Return whether the loops can write columns of these types."""
    return all(
        kind in WHOLE or kind in STRINGS or kind in (pa.float32(), pa.large_binary())
        or (pa.types.is_dictionary(kind) and kind.value_type in STRINGS)
        for kind in schema.types
    )  # fmt: skip


def written(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield the CSV of batches, without a header; one batch is written in a thread while the next one is read."""
    cell_bytes.compile_rows_apart()
    with ThreadPoolExecutor(1) as pool:
        before: Future[list[bytes]] | None = None
        for batch in batches:
            after = pool.submit(_pieces, batch)
            if before is not None:
                yield from before.result()
            before = after
        if before is not None:
            yield from before.result()


def _pieces(batch: pa.RecordBatch) -> list[bytes]:
    return [_rows(batch.slice(first, ROWS)) for first in range(0, len(batch), ROWS)]


@dataclass
class _Cells:
    """The cells of some rows as the loops take them: see `cell_bytes.write_rows`."""

    kinds: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    values: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    data: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    size: int = 0  # bytes in `data`
    most: int = 0  # bytes that texts and words can become

    def add(self, data: npt.NDArray[np.uint8]) -> int:
        """Add bytes, and return the place where they start."""
        self.data.append(data)
        self.size += len(data)
        return self.size - len(data)


def _rows(batch: pa.RecordBatch) -> bytes:
    shape = (batch.num_columns, len(batch))
    values, stops = np.empty(shape, np.int64), np.empty(shape, np.int64)
    cells = _Cells(np.zeros(shape[0], np.int64), np.ones(shape, bool), values, stops)
    for index, column in enumerate(batch.columns):
        if column.null_count:
            cells.present[index] = column.is_valid().to_numpy(zero_copy_only=False)
        if column.type in WHOLE:
            cells.kinds[index] = cell_bytes.WHOLE
            cells.values[index] = _buffer(column, WHOLE[column.type])
        elif column.type == pa.float32():
            cells.kinds[index] = cell_bytes.FLOAT
            cells.values[index] = _buffer(column, "u4")
        elif column.type == pa.large_binary():
            _add_texts(cells, index, column)
        else:
            _add_words(cells, index, column)
    out = np.empty(batch.num_rows * batch.num_columns * cell_bytes.LONGEST_NUMBER + cells.most, np.uint8)
    data = np.concatenate(cells.data) if cells.data else np.empty(0, np.uint8)
    size = cell_bytes.write_rows(cells.kinds, cells.present, cells.values, cells.stops, data, out)
    return out[:size].tobytes()


def _buffer(column: pa.Array, kind: str) -> npt.NDArray[Any]:
    """Return the values of a column of numbers, whatever they are where one is missing."""
    return np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column)]


def _add_texts(cells: _Cells, index: int, column: pa.Array) -> None:
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    whole = column.buffers()[2]
    data = np.frombuffer(b"" if whole is None else whole, np.uint8)[offsets[0] : offsets[-1]]
    places = offsets + (cells.add(data) - offsets[0])
    cells.kinds[index] = cell_bytes.TEXT
    cells.values[index], cells.stops[index] = places[:-1], places[1:]
    cells.most += len(data) * cell_bytes.LONGEST_ESCAPE


def _add_words(cells: _Cells, index: int, column: pa.Array) -> None:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    quoted = [b'"%s"' % (word or "").replace('"', '""').encode() for word in coded.dictionary.to_pylist()]
    ends = np.cumsum([0, *map(len, quoted)]) + cells.add(np.frombuffer(b"".join(quoted), np.uint8))
    places = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
    cells.kinds[index] = cell_bytes.WORDS
    if quoted:
        cells.values[index], cells.stops[index] = ends[places], ends[places + 1]
        cells.most += len(column) * max(map(len, quoted))
