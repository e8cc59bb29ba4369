"""Finds what trainers write in place of a loss: 0 for NaN, and NaN where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs.log import GRADIENT_NORM, LOSS, TRAIN
from lossprobe.logs.names import Meaning
from lossprobe.logs.records import Column
from lossprobe.units import plural, visible

FEWEST_MEASURED = 2


def without_stand_ins(
    columns: Mapping[str, Column], meanings: Mapping[str, Meaning]
) -> tuple[dict[str, Column], list[str]]:
    """Return columns with NaN for a loss that is none, and without rows that measured none; and a line about each.

    transformers with logging_nan_inf_filter, its default, writes a loss of 0 beside a gradient norm of NaN. A program
    that writes all its numbers in every row writes NaN for the validation loss of most of them.
    """
    found = dict(columns)
    notes: list[str] = []
    losses = [key for key, each in meanings.items() if each.name == LOSS]
    train = next((key for key in losses if meanings[key].split == TRAIN), None)
    norm = next((key for key, each in meanings.items() if (each.split, each.name) == (TRAIN, GRADIENT_NORM)), None)
    if train is not None and norm is not None:
        spoiled = _zero_for_nan(columns[train], columns[norm])
        if len(spoiled):
            column = columns[train]
            found[train] = Column(column.rows, np.where(np.isin(column.rows, spoiled), np.nan, column.values))
            notes.append(f"{plural(len(spoiled), 'row')} with a loss of 0 and a gradient norm of NaN: the loss is NaN")
    for key in losses:
        unmeasured = None if train is None or train == key else _unmeasured(found[key], columns[train])
        if unmeasured is not None:
            found[key] = Column(columns[key].rows[~unmeasured], columns[key].values[~unmeasured])
            count = plural(int(unmeasured.sum()), "row")
            notes.append(f"{visible(key, 60)} is NaN in {count} between others: read as not measured there")
    return found, notes


def _zero_for_nan(loss: Column, norm: Column) -> NDArray[np.int32]:
    """Return the records whose loss is 0 and whose gradient norm is NaN."""
    zero = loss.rows[loss.values == 0]
    return np.intersect1d(zero, norm.rows[np.isnan(norm.values)]) if len(zero) else zero


def _unmeasured(loss: Column, train: Column) -> NDArray[np.bool_] | None:
    """Return which rows of a loss are NaN because nothing was measured; None where it is NaN for another reason.

    They are more than half, stand beside a finite training loss, and a number comes after NaN at least twice.
    """
    missing = np.isnan(loss.values)
    if 2 * int(missing.sum()) <= len(missing) or int((missing[:-1] & ~missing[1:]).sum()) < FEWEST_MEASURED:
        return None
    beside = np.isin(loss.rows, train.rows[np.isfinite(train.values)])
    return missing if beside[missing].all() else None
