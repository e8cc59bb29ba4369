"""Turns the records of a log into series over steps, the same way whatever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lossprobe.errors import UsageError
from lossprobe.logs import names
from lossprobe.logs.bits import in_nats
from lossprobe.logs.course import Course, find_course
from lossprobe.logs.log import LOSS, TRAIN, Log, Series
from lossprobe.logs.names import Meaning, meaning
from lossprobe.logs.records import Column, Records
from lossprobe.logs.stand_ins import without_stand_ins
from lossprobe.logs.steps import find_steps, key_of
from lossprobe.units import NATS_PER_BIT, plural, visible

SHOWN = 12  # names of a message
SCALAR = "as an export of one scalar by TensorBoard, if that is a loss: `columns` step=Step,loss=Value"
UNNAMED = "`columns` says which name is the loss: step=NAME,loss=NAME"
FEWEST_CHANGES = 2  # of a number of tokens, to see whether it grows
MOST_RESTARTS = 0.2  # share of the rows before which the count of tokens falls; of a batch's it is about a half
AXES = {"step": names.STEPS, "epoch": names.EPOCHS, "tokens": names.TOKENS}
Floats = NDArray[np.float64]


def make_log(path: Path, records: Records, named: Mapping[str, str]) -> Log:
    """Return the log that records make.

    Args:
        path: the file of the log.
        records: what its reader found.
        named: what the user says that a key is, by key, such as {"it": "step", "tr": "loss"}.

    Raises:
        UsageError: there is no loss among them.
    """
    axes = {role: key_of(records.columns, role, known, named) for role, known in AXES.items()}
    meanings = _meanings(records, named, set(axes.values()))
    losses = [key for key, each in meanings.items() if each.name == LOSS]
    if not losses:
        _refuse_without_loss(path, records)
    most = max(losses, key=lambda key: (meanings[key].split == TRAIN, len(records.columns[key].rows)))
    steps = find_steps(records, named, most)
    records = _without(records, axes["step"])  # frees an eighth of the memory of a long log
    course = find_course(steps.values, records.columns[most].rows)
    columns, told = without_stand_ins(records.columns, meanings)
    notes = [*records.notes, *steps.notes, *course.notes, *told]
    if course.averaged:
        notes.append(_difference(columns[most], steps.values, course))
    notes += [
        f"{visible(key, 60)} is {visible(repr(records.words[key]), 60)} in a row, no number: such rows are left out"
        for key in losses if key in records.words
    ]  # fmt: skip
    notes += [
        f"{visible(key, 60)} is in bits: its values were multiplied by ln 2{_of_what(key)}"
        for key, each in meanings.items() if each.bits and each.name == LOSS
    ]  # fmt: skip
    series: list[Series] = []
    for key, each in meanings.items():
        made = _series(key, each, columns[key], steps.values, course)
        same = next((known.steps for known in series if np.array_equal(known.steps, made.steps)), made.steps)
        series.append(replace(made, steps=same))  # one copy of steps that are equal: a long log has many
    kept, in_bits = in_nats([each for each in series if len(each.steps)])
    epochs, tokens = (
        None if key is None else _series(key, Meaning(TRAIN, key), columns[key], steps.values, course)
        for key in (axes["epoch"], axes["tokens"])
    )
    if tokens is not None and not _goes_on(tokens):
        notes.append(f"{visible(tokens.key, 60)} counts the tokens of a row, not those so far: left out")
        tokens = None
    kept = _with_axes(kept, epochs, tokens)
    return Log(
        path, records.kind, kept, course.restarts, records.vocabulary, steps.counted, (*notes, *in_bits)
    )  # fmt: skip


def _of_what(key: str) -> str:
    """Return what a loss in bits is a mean over, where its name says something else than tokens."""
    words = set(re.split(r"[^a-z]+", key.lower()))
    unit = "byte" if words & {"bpb", "byte"} else "character" if words & {"bpc", "character", "char"} else ""
    return f"; they are nats per {unit}, not per token" if unit else ""


def _goes_on(tokens: Series) -> bool:
    """Return whether a number of tokens grows, but for restarts of its count, as one of a batch does not."""
    change = np.diff(tokens.values)
    return len(change) < FEWEST_CHANGES or bool((change > 0).any() and (change < 0).mean() <= MOST_RESTARTS)


def _with_axes(several: tuple[Series, ...], epochs: Series | None, tokens: Series | None) -> tuple[Series, ...]:
    """Return series with epochs and tokens at their steps; those with the same steps share them."""
    found: dict[int, tuple[Floats | None, Floats | None]] = {}  # by the identity of the steps
    for each in several:
        if id(each.steps) not in found:
            found[id(each.steps)] = _along(epochs, each.steps), _along(tokens, each.steps)
    axes = [found[id(each.steps)] for each in several]
    return tuple(replace(each, epochs=e, tokens=t) for each, (e, t) in zip(several, axes, strict=True))


def _meanings(records: Records, named: Mapping[str, str], axes: set[str | None]) -> dict[str, Meaning]:
    """Return what each key means; where several mean the same, all but the best keep their key for a name."""
    found = {
        key: replace(meaning(named[key]), rank=-1) if key in named else meaning(key)
        for key in records.columns if key not in axes and (key in named or not names.BOOKKEEPING.search(key))
    }  # fmt: skip
    if "train_loss" in found and "train_loss" not in named and "train_runtime" in records.columns:
        found["train_loss"] = Meaning(TRAIN, "train_loss")  # transformers' mean over the whole run
    best: dict[tuple[str, str], str] = {}
    for key, each in found.items():
        known = best.setdefault((each.split, each.name), key)
        if each.rank < found[known].rank:
            best[each.split, each.name] = key
    return {
        key: each
        if best[each.split, each.name] == key
        else Meaning(each.split, f"other {key}" if key == each.name else key)
        for key, each in found.items()
    }


def _without(records: Records, key: str | None) -> Records:
    return replace(records, columns={each: column for each, column in records.columns.items() if each != key})


def _refuse_without_loss(path: Path, records: Records) -> None:
    shown = visible(str(path), 200)
    wrong = next(((key, word) for key, word in records.words.items() if meaning(key).name == LOSS), None)
    if wrong is not None:
        raise UsageError("log.number", f"{shown}: {visible(wrong[0], 60)} is {visible(repr(wrong[1]), 60)}, no number")
    if not records.count and not records.columns and not records.words and records.kind == "trainer_state":
        hint = "a trainer fills it at its logging steps; a later checkpoint has more of it"
        raise UsageError("log.no_loss", f"{shown}: its log_history has 0 records", hint=hint)
    have = [visible(key, 40) for key in records.columns]
    more = f" and {len(have) - SHOWN} more" if len(have) > SHOWN else ""
    listed = f"it has {', '.join(have[:SHOWN])}{more}" if have else "none of its numbers has a name that is known"
    raise UsageError(
        "log.no_loss", f"{shown}: no loss in {plural(records.count, 'record')}; {listed}",
        hint=SCALAR if {"Step", "Value"} <= set(records.columns) else UNNAMED,
    )  # fmt: skip


def _series(key: str, means: Meaning, column: Column, steps: NDArray[np.int64], course: Course) -> Series:
    """Return the series of a column, each step once and in order."""
    own, values = _kept(column, steps, course)
    if (own[1:] <= own[:-1]).any():
        own, values, first = _grouped(own, values)
        if course.averaged:
            values = np.add.reduceat(values, first) / np.diff(first, append=len(own))
        else:
            values = values[np.append(first[1:], len(own)) - 1]
        own = own[first]
    if means.bits:
        values = values * NATS_PER_BIT
    return Series(means.split, means.name, key, own, values)


def _kept(column: Column, steps: NDArray[np.int64], course: Course) -> tuple[NDArray[np.int64], Floats]:
    """Return the step and the value of each row that counts, in the order of the file."""
    rows, values = column.rows, column.values
    if course.kept is not None:
        kept = course.kept[rows]
        rows, values = rows[kept], values[kept]
    return steps if len(rows) == len(steps) else steps[rows], values


def _grouped(steps: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats, NDArray[np.intp]]:
    """Return steps and values in order, and the place of the first of each step; the last written stands last."""
    order = np.argsort(steps, kind="stable")
    steps = steps[order]
    return steps, values[order], np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))


def _difference(column: Column, steps: NDArray[np.int64], course: Course) -> str:
    """Return a line about the largest difference between values of one step."""
    _, values, first = _grouped(*_kept(column, steps, course))
    with np.errstate(invalid="ignore"):
        spread = np.maximum.reduceat(values, first) - np.minimum.reduceat(values, first)
    return f"losses of one step differ by up to {np.nanmax(spread, initial=0.0):.4g}"


def _along(axis: Series | None, steps: NDArray[np.int64]) -> Floats | None:
    """Return epochs or tokens at steps, between the rows that have them on a straight line; NaN outside."""
    if axis is None:
        return None
    if not len(axis.steps):
        return np.full(len(steps), np.nan)
    if np.array_equal(axis.steps, steps):
        return axis.values
    return np.interp(steps, axis.steps, axis.values, left=np.nan, right=np.nan)
