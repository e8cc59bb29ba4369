"""Gives every record of a log its step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs import names
from lossprobe.logs.records import Column, Records
from lossprobe.units import format_count, plural

BLOCK = 1 << 18  # rows
LARGEST = 2.0**53  # from here on float64 skips whole numbers


@dataclass(frozen=True)
class Steps:
    """The step of every record.

    Attributes:
        values: int64 [records].
        counted: whether the log has no steps, so that rows or epochs were counted.
        notes: what a reader of the log must know, one line each.
    """

    values: NDArray[np.int64]
    counted: bool = False
    notes: tuple[str, ...] = ()


def key_of(columns: Mapping[str, Column], role: str, known: tuple[str, ...], named: Mapping[str, str]) -> str | None:
    """Return the key of a log that plays a role, such as "step": the one that the user names, or the best known one."""
    for key, its_role in named.items():
        if its_role == role and key in columns:
            return key
    plain = {names.without_run(key).strip().lower(): key for key in columns}
    return next((plain[each] for each in known if each in plain), None)


def find_steps(records: Records, named: Mapping[str, str], loss: str) -> Steps:
    """Return the step of every record: the log's own, else its epochs, else the rows of its loss, counted from 1.

    A record without a step has that of the record before it, as the validation of llm.c: before all steps it is 0.
    The log's own steps are changed in place, so that the column that they stand in holds numbers no more.

    Args:
        records: the records.
        named: what the user says that a key is, by key.
        loss: the key of the loss that is logged most.
    """
    columns = records.columns
    key = key_of(columns, "step", names.STEPS, named)
    if key is not None:
        rows, values = columns[key].rows, columns[key].values
        finite = (values > -LARGEST) & (values < LARGEST)
        if finite.all():
            return Steps(_carried(rows, values, records.count))
        note = f"{plural(int((~finite).sum()), 'row')} whose step is no number have that of the row before"
        return Steps(_carried(rows[finite], values[finite], records.count), notes=(note,))
    epoch = key_of(columns, "epoch", names.EPOCHS, named)
    if epoch is not None and _one_row_each(columns[epoch], columns[loss]):
        note = "the log counts epochs and has no steps: its epochs stand in their place"
        return Steps(_carried(columns[epoch].rows, columns[epoch].values, records.count), True, (note,))
    counted = np.zeros(records.count, np.int64)
    counted[columns[loss].rows] = 1
    if epoch is not None:
        _count_anew(counted, _begins(columns[epoch], columns[loss]))
    note = f"the log has no steps: its {format_count(len(columns[loss].rows))} rows with a loss are counted from 1"
    return Steps(np.cumsum(counted), True, (note,))


def _begins(epochs: Column, loss: Column) -> NDArray[np.int32]:
    """Return the records with a loss where a run begins anew: the epoch falls to less than half of what it was."""
    own = np.interp(loss.rows, epochs.rows, epochs.values)
    return loss.rows[1:][own[1:] < own[:-1] / 2.0]


def _count_anew(counted: NDArray[np.int64], begins: NDArray[np.int32]) -> None:
    """Change ones, of which the cumulative sum are counts, so that it is 1 again at some of them."""
    counts = np.cumsum(counted)[begins]
    counted[begins] -= np.diff(counts, prepend=1)


def _one_row_each(epochs: Column, loss: Column) -> bool:
    """Return whether epochs are whole numbers, and most of them stand beside one loss only."""
    whole = np.isfinite(epochs.values).all() and (epochs.values == np.round(epochs.values)).all()
    return bool(whole) and 2 * len(np.unique(epochs.values)) > len(loss.rows)


def _carried(rows: NDArray[np.int32], values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return a step for each of `count` records: that of its own row, or of the last row before it, or 0."""
    if len(rows) == count:
        return _as_whole(values)
    carried = np.zeros(count, np.int64)
    ends = np.append(rows[1:], count)
    for begin in range(0, len(rows), BLOCK):  # whole arrays would take several times the memory of the result
        block = slice(begin, begin + BLOCK)
        carried[rows[begin] : ends[block][-1]] = np.repeat(values[block], ends[block] - rows[block])
    if len(rows):
        carried[: rows[0]] = min(0.0, values[0])
    return carried


def _as_whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return numbers without their decimals, in the memory of the numbers themselves: a long log has no room for both.

    >>> _as_whole(np.array([1.0, 2.5])).tolist()
    [1, 2]
    """
    whole = values.view(np.int64)
    for begin in range(0, len(values), BLOCK):
        whole[begin : begin + BLOCK] = values[begin : begin + BLOCK]
    return whole
