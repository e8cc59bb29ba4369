"""Writes Arrow batches as CSV by compiled loops, while the next batch is read; the bytes are those of `csv`."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.report.formats import cell_bytes
from lossprobe.report.formats.decimals import to_decimals

WHOLE = {pa.int8(): "i1", pa.int16(): "i2", pa.int32(): "i4", pa.int64(): "i8"}  # Arrow's type → numpy's
READ_AHEAD = 3  # batches, since a reader needs long for the first of a row group and hardly any time for the others
STRINGS = (pa.string(), pa.large_string())
MOST_BYTES = 1 << 29  # of a batch: `cell_bytes.span` has 31 bits for a place, and quotes can double words


def are_written(schema: pa.Schema) -> bool:
    """Return whether the loops can write columns of these types, on this machine."""
    return sys.byteorder == "little" and all(
        kind in WHOLE or kind in STRINGS or kind in (pa.float32(), pa.large_binary())
        or (pa.types.is_dictionary(kind) and kind.value_type in STRINGS)
        for kind in schema.types
    )  # fmt: skip


def written(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield the CSV of batches, without a header; a thread writes batches while the next ones are read."""
    cell_bytes.compile_rows_apart()
    room = _Room()
    with ThreadPoolExecutor(1) as pool:
        begun: deque[Future[bytes]] = deque()
        for batch in batches:
            begun.append(pool.submit(_rows, batch, room))
            if len(begun) > READ_AHEAD:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


class _Room:
    """Memory that one batch after the other uses: each page of new memory costs as much as two rows."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, *shape: int) -> npt.NDArray[np.uint8]:
        """Return bytes of a shape, whatever they hold; they are those that the last call with this name returned."""
        size = math.prod(shape)
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = np.empty(size, np.uint8)
        return self._held[name][:size].reshape(shape)


@dataclass
class _Cells:
    """The cells of some rows as the loops take them: see `cell_bytes.write_rows`."""

    kinds: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    values: npt.NDArray[np.int64]
    data: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    size: int = 0  # bytes in `data`
    most: int = 0  # bytes that texts and words can become

    def add(self, data: npt.NDArray[np.uint8]) -> int:
        """Add bytes, and return the place where they start."""
        self.data.append(data)
        self.size += len(data)
        return self.size - len(data)


def _rows(batch: pa.RecordBatch, room: _Room) -> bytes:
    """Return the CSV of a batch; of one half after the other where it is too long."""
    if not len(batch):
        return b""
    half = len(batch) // 2
    if batch.nbytes > MOST_BYTES and half:
        return _rows(batch.slice(0, half), room) + _rows(batch.slice(half), room)
    shape = (batch.num_columns, len(batch))
    values = room.array("values", *shape, 8).view(np.int64)[..., 0]
    cells = _Cells(np.zeros(shape[0], np.int64), room.array("present", *shape).view(bool), values)
    for index, column in enumerate(map(_plain, batch.columns)):
        cells.present[index] = _are_present(column) if column.null_count else True
        if column.type in WHOLE:
            cells.kinds[index] = cell_bytes.WHOLE
            cells.values[index] = _buffer(column, WHOLE[column.type])
        elif column.type == pa.float32():
            cells.kinds[index] = cell_bytes.FLOAT
            cells.values[index] = _buffer(column, "u4")
            to_decimals(cells.values[index])
        elif column.type == pa.large_binary():
            _add_texts(cells, index, column)
        else:
            _add_words(cells, index, column)
    cells.add(np.zeros(cell_bytes.SLACK, np.uint8))
    longest = batch.num_rows * batch.num_columns * cell_bytes.LONGEST_NUMBER + cells.most
    out = room.array("out", longest + cell_bytes.SLACK)
    size = cell_bytes.write_rows(cells.kinds, cells.present, cells.values, np.concatenate(cells.data), out)
    return out[:size].tobytes()


def _plain(column: pa.Array) -> pa.Array:
    """Return a column whose missing values are all among its own: a word of a dictionary can be missing too."""
    missing = pa.types.is_dictionary(column.type) and column.dictionary.null_count
    return column.dictionary_decode() if missing else column


def _are_present(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Return 1 for each value that is there, and 0 for each that is missing."""
    first, stop = column.offset, column.offset + len(column)
    bitmap = np.frombuffer(column.buffers()[0], np.uint8)[first >> 3 : (stop + 7) >> 3]
    return np.unpackbits(bitmap, bitorder="little")[first & 7 :][: len(column)]


def _buffer(column: pa.Array, kind: str) -> npt.NDArray[Any]:
    """Return the values of a column of numbers, whatever they are where one is missing."""
    return np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column)]


def _add_texts(cells: _Cells, index: int, column: pa.Array) -> None:
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    whole = column.buffers()[2]
    data = np.frombuffer(b"" if whole is None else whole, np.uint8)[offsets[0] : offsets[-1]]
    shift = cells.add(data) - offsets[0]
    cells.kinds[index] = cell_bytes.TEXT
    cells.values[index] = cell_bytes.span(offsets[:-1] + shift, offsets[1:] + shift)
    cells.most += len(data) * cell_bytes.LONGEST_ESCAPE


def _add_words(cells: _Cells, index: int, column: pa.Array) -> None:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = coded.dictionary.cast(pa.large_binary()).to_pylist()  # copied as they are, UTF-8 or not
    quoted = [b'"%s"' % (word or b"").replace(b'"', b'""') for word in words]
    ends = np.cumsum([0, *map(len, quoted)]) + cells.add(np.frombuffer(b"".join(quoted), np.uint8))
    cells.kinds[index] = cell_bytes.WORDS
    if quoted:
        places = coded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        cells.values[index] = cell_bytes.span(ends[:-1], ends[1:])[places]
        cells.most += int(np.diff(ends)[places].sum())  # one word may be much longer than the others
