"""Turns the rows of a part and their measurements into the columns of its tables, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.plan.labels import NO_TURN, Labels
from lossprobe.plan.part_scores import RoutingSums
from lossprobe.plan.rows import SCORED, UNSCORED, Rows
from lossprobe.run.files import fill_table
from lossprobe.run.plain_arrays import absent_of, to_arrow, to_numpy
from lossprobe.run.schema import LABELS, PLANNED, Column
from lossprobe.run.written import WrittenFolder

OWN = "own"
RISING = ("document", "token", "byte_start", "byte_stop", "window", "context")  # columns of planned rows


def write_planned(folder: WrittenFolder, name: str, rows: Rows) -> None:
    """Store the rows that one part is to score."""
    own = Column(OWN, "bool", "false for rows that an earlier part scores")
    columns = (*PLANNED, own, *(() if rows.labels is None else LABELS))
    with folder.target(name) as target:
        fill_table(target, columns, {**planned_values(rows), OWN: rows.own}, RISING)


def planned_values(rows: Rows) -> dict[str, Any]:
    """Return the columns of rows that are known before scoring."""
    values: dict[str, Any] = {column.name: getattr(rows, column.name) for column in PLANNED}
    values["unscored"] = reasons(rows.unscored)
    if rows.labels is not None:
        values["turn"] = np.ma.masked_array(rows.labels.turn.astype(np.int32), rows.labels.turn == NO_TURN)
        for column in LABELS[1:]:
            words = pa.array(getattr(rows.labels, column.name), pa.string())
            values[column.name] = words.dictionary_encode().cast(column.type)
    return values


def routing_values(routing: RoutingSums) -> dict[str, Any]:
    """Return the columns of the table `routing`: a row for each window, layer and expert."""
    windows, layers, experts = routing.slots.shape
    each = np.indices((layers, experts), np.int16).reshape(2, -1)
    values: dict[str, Any] = {
        name: np.repeat(getattr(routing, name), layers * experts) for name in ("document", "window", "tokens")
    }
    values["layer"], values["expert"] = np.tile(each[0], windows), np.tile(each[1], windows)
    return values | {
        "probability": routing.probability.ravel().astype(np.float32),
        "slots": routing.slots.ravel().astype(np.int32),
    }


def read_labels(table: pa.Table) -> Labels | None:
    """Return the labels of the rows of a part of a plan; None for plain text."""
    if "turn" not in table.column_names:
        return None
    turn = table["turn"].fill_null(NO_TURN).to_numpy().astype(np.int64)
    return Labels(turn, *(_taken(table[name], lambda words: np.array(words, object)) for name in ("role", "part")))


def reasons(codes: npt.NDArray[np.int64]) -> pa.DictionaryArray:
    """Return the dictionary column of the reasons why rows are not scored; null for scored rows."""
    indices = to_arrow(np.ma.masked_array(codes.astype(np.int8), codes == SCORED), pa.int8())
    return pa.DictionaryArray.from_arrays(indices, to_arrow(UNSCORED, pa.string()))


def read_reasons(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return the codes from which `reasons` made a column."""
    codes = {None: SCORED} | {reason: code for code, reason in enumerate(UNSCORED)}
    return _taken(column, lambda words: np.array([codes[word] for word in words], np.int64))


def _taken(column: pa.ChunkedArray, of_words: Callable[[list[str | None]], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return what a function makes of the words of a dictionary column and of None, for each row of the column."""
    whole = column.combine_chunks()
    values = of_words([*whole.dictionary.to_pylist(), None])
    taken: npt.NDArray[Any] = values[np.where(absent_of(whole.indices), len(values) - 1, to_numpy(whole.indices))]
    return taken
