"""Hashes with where they are in a text, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lossprobe.analysis.defects.word_hashes import Hashes, Places

LARGEST = 2**64 - 1
MOST = 1 << 21  # hashes kept at once, 40 bytes each


class Rows(NamedTuple):
    """Arrays of the same length: hash, document, first and last byte, number of the first word in the document."""

    hashes: Hashes
    document: Places
    start: Places
    stop: Places
    word: Places

    def chosen(self, rows: Places) -> Rows:
        """Return some of the rows."""
        return Rows(self.hashes[rows], self.document[rows], self.start[rows], self.stop[rows], self.word[rows])


@dataclass
class KeptHashes:
    """Collects hashes; where there are too many, only those up to a limit, which are the same ones in the whole text.

    Attributes:
        limit: hashes above it are left out; 2^64 − 1 keeps all.
        most: how many are kept.
    """

    limit: int = LARGEST
    most: int = MOST
    _parts: list[Rows] = field(default_factory=list, repr=False)
    _size: int = 0

    @property
    def share(self) -> float:
        """The share of the hashes that is kept."""
        return (self.limit + 1) / (LARGEST + 1)

    def add(self, rows: Rows) -> None:
        """Add rows, in the order of the text."""
        rows = self._below(rows)
        if len(rows.hashes):
            self._parts.append(rows)
            self._size += len(rows.hashes)
        while self._size > self.most:
            self.limit //= 2
            self._parts = [self._below(part) for part in self._parts]
            self._size = sum(len(part.hashes) for part in self._parts)

    def _below(self, rows: Rows) -> Rows:
        if self.limit == LARGEST:
            return rows
        return rows.chosen(np.flatnonzero(rows.hashes <= np.uint64(self.limit)))

    def rows(self) -> Rows:
        """Return all rows that are kept, in the order of the text."""
        none = np.zeros(0, np.int64)
        parts = [Rows(np.zeros(0, np.uint64), none, none, none, none), *self._parts]
        return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class SeenHashes(NamedTuple):
    """What else has the hash of each row.

    Attributes:
        first: int64 [N], the first row with the hash.
        previous: int64 [N], the last row before this one with the hash; the row itself where there is none.
        documents: int64 [N], how many documents have it.
    """

    first: Places
    previous: Places
    documents: Places


def seen(rows: Rows) -> SeenHashes:
    """Return for each row the first one with its hash and the one before it, and in how many documents it is.

    >>> at = np.array([0, 0, 1, 2])
    >>> found = seen(Rows(np.array([7, 8, 7, 7], np.uint64), at, at, at, at))
    >>> found.first.tolist(), found.previous.tolist(), found.documents.tolist()
    ([0, 1, 0, 0], [0, 1, 0, 2], [3, 1, 3, 3])
    """
    order = np.argsort(rows.hashes, kind="stable")
    hashes, document = rows.hashes[order], rows.document[order]
    new = np.ones(len(order), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    other = new.copy()
    other[1:] |= document[1:] != document[:-1]
    group = np.cumsum(new) - 1
    first, previous, documents = (np.empty(len(order), np.int64) for _ in range(3))
    previous[order] = np.where(new, order, np.concatenate([order[:1], order[:-1]]))
    first[order] = order[np.flatnonzero(new)][group]
    documents[order] = np.bincount(group, other, minlength=1).astype(np.int64)[group]
    return SeenHashes(first, previous, documents)
