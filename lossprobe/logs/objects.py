"""Puts JSON objects, one a record of a log, into a table of numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lossprobe.logs.log import LOSS
from lossprobe.logs.names import meaning
from lossprobe.logs.records import Table

Object = dict[str, Any]
Keys = frozenset[str]


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
                self._beside[key].add(frozenset(keys) - {key})

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
            if not any(type(None) in each for each in kinds):
                self.saw(keys)
            places = np.array([rows[index] for index in members], np.int64)
            for key, cells, kind in zip(keys, columns, kinds, strict=True):
                is_empty_loss = type(None) in kind and meaning(key).name == LOSS
                known = self._with_nan(key, [records[index] for index in members]) if is_empty_loss else cells
                self.table.add_cells(key, places, known)

    def _with_nan(self, key: str, records: Sequence[Object]) -> list[Any]:
        """Return the values under a key of a loss; a null is NaN where the record is like those with a number."""
        others = [frozenset(each for each, value in record.items() if value is not None) - {key} for record in records]
        self._beside[key] |= {keys for keys, record in zip(others, records, strict=True) if record[key] is not None}
        return [
            float("nan") if record[key] is None and keys in self._beside[key] else record[key]
            for keys, record in zip(others, records, strict=True)
        ]


def _flat(record: Object) -> Object:
    """Return an object with the objects inside it one level up, under "outer.inner"."""
    flat: Object = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": each for inner, each in value.items()}
        else:
            flat[key] = value
    return flat
