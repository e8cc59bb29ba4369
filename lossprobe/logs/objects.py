"""Puts JSON objects, one a record of a log, into a table of numbers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs.log import ACCURACY, ENTROPY, GRADIENT_NORM, LOSS
from lossprobe.logs.names import meaning
from lossprobe.logs.records import Table

Object = dict[str, Any]
Keys = frozenset[str]
Mask = NDArray[np.bool_]
SPOILED = (GRADIENT_NORM, ENTROPY, ACCURACY)  # together with a loss


class Objects:
    """Puts objects into a table, block by block.

    A null under the name of a loss is NaN, which strict JSON cannot write, where the other keys of its record are those
    that stand beside a loss elsewhere. In any other record it says that nothing was measured.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._beside: dict[str, set[Keys]] = defaultdict(set)

    def add_block(self, records: Sequence[Object]) -> None:
        """Add the objects of a block; an object inside one gives keys such as "train.loss"."""
        self._add(list(range(len(records))), records)
        self.table.end_block(len(records))

    def saw(self, keys: Sequence[str]) -> None:
        """Remember the keys of a record that has a number under each."""
        for key in keys:
            if meaning(key).name == LOSS:
                self._beside[key].add(_telling(keys, {key}))

    def nan_among(self, key: str, keys: Sequence[str], empty: Mapping[str, Mask]) -> Mask:
        """Return which nulls under a key are NaN.

        Args:
            key: the key.
            keys: all keys of some records.
            empty: which of the records have nothing under a key, for the keys where that happens.
        """
        if meaning(key).name != LOSS:
            return np.zeros(len(empty[key]), np.bool_)
        which = np.zeros(len(empty[key]), np.int64)  # numbers the sets of empty keys beside this one
        for other in empty:
            if other != key:
                which = np.unique(2 * which + empty[other], return_inverse=True)[1]
        first = np.unique(which, return_index=True)[1]
        beside = [_telling(keys, {key} | {each for each in empty if empty[each][index]}) for index in first]
        self._beside[key] |= {beside[index] for index in np.unique(which[~empty[key]])}
        known = np.array([each in self._beside[key] for each in beside])
        return np.asarray(empty[key] & known[which])

    def _add(self, rows: Sequence[int], records: Sequence[Object]) -> None:
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            groups[tuple(record)].append(index)
        for keys, members in groups.items():
            columns = list(zip(*[records[index].values() for index in members], strict=True))
            kinds = [set(map(type, cells)) for cells in columns]
            if any(dict in each for each in kinds):
                self._add([rows[index] for index in members], [_flat(records[index]) for index in members])
                continue
            places = np.array([rows[index] for index in members], np.int64)
            empty = {
                key: np.array([cell is None for cell in cells])
                for key, cells, kind in zip(keys, columns, kinds, strict=True) if type(None) in kind
            }  # fmt: skip
            if not empty:
                self.saw(keys)
            for key, cells in zip(keys, columns, strict=True):
                if key in empty:
                    nan = self.nan_among(key, keys, empty)
                    kept = np.flatnonzero(~empty[key] | nan)
                    filled = [cells[index] if cells[index] is not None else math.nan for index in kept]
                    self.table.add_cells(key, places[kept], filled)
                else:
                    self.table.add_cells(key, places, cells)


def _telling(keys: Sequence[str], without: set[str]) -> Keys:
    """Return the keys that tell what a record is about, but for those that become NaN together with a loss."""
    return frozenset(key for key in keys if key not in without and meaning(key).name not in SPOILED)


def _flat(record: Object) -> Object:
    """Return an object with the objects inside it one level up, under "outer.inner"."""
    flat: Object = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat
