"""The numbers of a log in the order of its file, before any of them is known to be a loss or a step."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Column:
    """The numbers under one key of a log.

    Attributes:
        rows: the record that each stands in, counted from 0, int32 [N], rising.
        values: the numbers, float64 [N]; NaN only where the log says so.
    """

    rows: NDArray[np.int32]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Records:
    """What a reader found in a log.

    Attributes:
        kind: what wrote the log, such as "nanogpt".
        count: records, such as lines with numbers.
        columns: the numbers by their key in the log.
        words: keys that hold something else than numbers, such as text, with an example.
        vocabulary: entries of the model's vocabulary, where the log says.
        notes: what a reader of the log must know, one line each.
    """

    kind: str
    count: int
    columns: Mapping[str, Column]
    words: Mapping[str, str] = field(default_factory=dict)
    vocabulary: int | None = None
    notes: tuple[str, ...] = ()


class Table:
    """Collects the numbers of a log block by block, in 8 bytes each and a bit for each record.

    Attributes:
        count: records of the blocks so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._block: dict[str, list[tuple[NDArray[Any], NDArray[np.float64]]]] = {}
        self._present: dict[str, list[tuple[int, bytes]]] = {}  # by block: its first record, a bit for each
        self._values: dict[str, array[float]] = {}
        self._words: dict[str, str] = {}

    def add(self, key: str, rows: NDArray[Any], values: NDArray[np.float64]) -> None:
        """Add numbers under a key.

        Args:
            key: the key.
            rows: the records of the block that they stand in, counted from 0, in any order; of a record that stands
                twice the last number counts.
            values: the numbers.
        """
        if len(rows):
            self._block.setdefault(key, []).append((rows, values))

    def end_block(self, records: int) -> None:
        """Store the numbers that were added since the last block, which had this many records."""
        for key, pieces in self._block.items():
            found, present = np.empty(records), np.zeros(records, np.bool_)
            for rows, values in pieces:
                found[rows], present[rows] = values, True
            self._present.setdefault(key, []).append((self.count, np.packbits(present).tobytes()))
            self._values.setdefault(key, array("d")).frombytes(found[present].tobytes())
        self._block.clear()
        self.count += records

    def add_cells(self, key: str, rows: NDArray[Any], cells: Sequence[Any]) -> None:
        """Add the cells under a key that are numbers, also as text; others are kept as words.

        Args:
            key: the key.
            rows: the record of the block that each stands in.
            cells: numbers, text, or None where there is nothing.
        """
        found = _array(cells)
        if found is not None:
            self.add(key, rows, found)
            return
        numbers = [number(cell) for cell in cells]
        kept = [index for index, each in enumerate(numbers) if each is not None]
        self.add(key, rows[kept], np.array([numbers[index] for index in kept], np.float64))
        word = next((cell for cell, each in zip(cells, numbers, strict=True) if each is None and cell), None)
        if word is not None:
            self._words.setdefault(key, str(word))

    def keys(self) -> set[str]:
        """Return the keys with numbers so far."""
        return set(self._values)

    def records(self, kind: str, *, vocabulary: int | None = None, notes: Sequence[str] = ()) -> Records:
        """Return what was collected, and forget it; columns of the same records share their row numbers."""
        columns: dict[str, Column] = {}
        for key in list(self._values):
            values = np.frombuffer(self._values.pop(key), np.float64)
            same = next((each for each in columns if self._present[each] == self._present[key]), None)
            rows = _rows(self._present[key], len(values)) if same is None else columns[same].rows
            columns[key] = Column(rows, values)
        self._present.clear()
        return Records(kind, self.count, columns, self._words, vocabulary, tuple(notes))


def _rows(blocks: Sequence[tuple[int, bytes]], count: int) -> NDArray[np.int32]:
    """Return the records that bits are set for, of which there are `count` in all."""
    rows = np.empty(count, np.int32)
    end = 0
    for first, bits in blocks:
        found = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8)))
        rows[end : end + len(found)] = first + found
        end += len(found)
    return rows


def joined(several: Sequence[Records]) -> Records:
    """Return the records of several files of one run, one after the other."""
    if len(several) == 1:
        return several[0]
    columns: dict[str, list[tuple[NDArray[np.int32], NDArray[np.float64]]]] = {}
    count = 0
    for each in several:
        for key, column in each.columns.items():
            columns.setdefault(key, []).append((column.rows + np.int32(count), column.values))
        count += each.count
    whole = {key: Column(*map(np.concatenate, zip(*pieces, strict=True))) for key, pieces in columns.items()}
    words = {key: word for each in several for key, word in each.words.items()}
    notes = tuple(note for each in several for note in each.notes)
    return replace(several[0], count=count, columns=whole, words=words, notes=notes)


def number(cell: Any) -> float | None:
    """Return a cell as a number, or None where it is none: text such as "3.412", "1.8e+04", "NaN" and "inf" is one.

    >>> number("1.808e+04"), number("-Infinity"), number("1 day, 0:08:23"), number(True), number("1_0")
    (18080.0, -inf, None, None, None)
    """
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    if isinstance(cell, str) and ("_" in cell or len(cell) > 400):
        return None  # float() takes "1_0" for 10
    try:
        return float(cell)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def _array(cells: Sequence[Any]) -> NDArray[np.float64] | None:
    """Return cells that are all numbers, or all text of numbers, as `number` knows them; None for any others.

    >>> _array([1.5, 2]).tolist(), _array(["1.5", "2"]).tolist(), _array([1.5, False]), _array(["1_0"])
    ([1.5, 2.0], [1.5, 2.0], None, None)
    """
    kinds = set(map(type, cells))
    if bool in kinds or (str in kinds and any("_" in cell for cell in cells if isinstance(cell, str))):
        return None  # numpy takes False beside numbers for 0, and "1_0" for 10
    try:
        found = np.array(cells)
        return found.astype(np.float64) if found.dtype.kind in "fiuU" else None
    except (ValueError, OverflowError):
        return None
