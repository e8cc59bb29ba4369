"""How the steps of a log run through its file: restarts, several runs, several processes that write one file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs.log import Restart
from lossprobe.units import format_count, plural

Steps = NDArray[np.int64]
FEW_STEPS_BACK = 10  # spacings of the log; processes that share a file are never further apart than this

FEWEST_TURNS = 3
MOST_WAYS_BACK = 0.3  # of the rows; more are no restarts, but a file in another order


@dataclass(frozen=True)
class Course:
    """How the steps of a log run through its file.

    Attributes:
        kept: whether each record belongs to the run that is read and was not written again, bool [records]; None for
            all of them.
        averaged: whether several processes wrote each step, so that the mean of their values is used.
        restarts: where the run went back.
        notes: what a reader of the log must know, one line each.
    """

    kept: NDArray[np.bool_] | None = None
    averaged: bool = False
    restarts: tuple[Restart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Part:
    """Records that a run wrote without going back.

    Attributes:
        begin: its first record.
        steps: the steps of its rows of the loss.
    """

    begin: int
    steps: Steps


def find_course(steps: Steps, rows: NDArray[np.int32]) -> Course:
    """Return how the steps of a log run through its file.

    Args:
        steps: the step of each record, in file order.
        rows: the records with the loss that is logged most, whose steps decide; others may come late.
    """
    own = steps if len(rows) == len(steps) else steps[rows]
    if len(own) == 0 or (own[1:] > own[:-1]).all():
        return Course()
    distinct, times = np.unique(own, return_counts=True)
    spacing = float(np.median(np.diff(distinct))) if len(distinct) > 1 else 1.0
    back = np.flatnonzero(own[1:] < own[:-1]) + 1
    depth = np.maximum.accumulate(own)[back - 1] - own[back]
    far = back[depth > FEW_STEPS_BACK * spacing]
    averaged = _several_wrote(own, far)
    notes: list[str] = []
    if averaged:
        notes.append(
            f"{format_count(int((times > 1).sum()))} of {plural(len(distinct), 'step')} stand more than once, as "
            "several processes write them into one file: the mean of their values is used"
        )
    elif len(back) > MOST_WAYS_BACK * len(own):
        return Course(notes=("the rows do not stand in the order of their steps: they were put in order",))
    bounds = [0, *(far if averaged else back).tolist(), len(own)]
    parts = [_Part(_begin(steps, rows, first), own[first:last]) for first, last in pairwise(bounds)]
    return _chosen(steps, parts, averaged=averaged, notes=notes)


def _several_wrote(own: Steps, far: NDArray[np.intp]) -> bool:
    """Return whether several processes wrote the steps: at least half stand more than once between two long ways back.

    A restart also writes steps again, but in one stretch; processes write theirs in turn, so that the steps do not rise
    from row to row at least half as often as a step stands again.
    """
    parts = np.split(own, far)
    times = np.concatenate([np.unique(part, return_counts=True)[1] for part in parts])
    again = int((times > 1).sum())
    turns = sum(int((part[1:] <= part[:-1]).sum()) for part in parts)
    return 2 * again >= len(times) and turns >= max(FEWEST_TURNS, again / 2)


def _begin(steps: Steps, rows: NDArray[np.int32], first: int) -> int:
    """Return the first record of a part: other records before its first loss belong to it, where they went back too."""
    if first == 0:
        return 0
    last = int(rows[first - 1])
    between = steps[last + 1 : int(rows[first]) + 1]
    return last + 1 + int(np.argmax(between < steps[last]))


def _chosen(steps: Steps, parts: list[_Part], *, averaged: bool, notes: list[str]) -> Course:
    """Return the course of the longest run of a log, the last one of equals."""
    runs: list[list[_Part]] = [[parts[0]]]
    for part in parts[1:]:
        if part.steps[0] <= runs[-1][0].steps[0]:
            runs.append([part])
        else:
            runs[-1].append(part)
    ends = [run[0].begin for run in runs[1:]] + [len(steps)]
    lengths = [len(np.unique(np.concatenate([part.steps for part in run]))) for run in runs]
    chosen = max(range(len(runs)), key=lambda index: (lengths[index], index))
    run, end = runs[chosen], ends[chosen]
    if len(runs) > 1:
        others = len(steps) - (end - run[0].begin)
        notes.append(
            f"{len(runs)} runs in one file, each from its beginning: run {chosen + 1} is read, the longest with "
            f"{plural(lengths[chosen], 'step')}; {plural(others, 'row')} of the others are left out"
        )
    kept = np.zeros(len(steps), np.bool_)
    kept[run[0].begin : end] = True
    restarts, lost = _without_rewritten(steps, run, end, kept)
    if lost:
        notes.append(f"{plural(lost, 'row')} after the point that a restart went back to were never reached again: "
                     "they are left out")  # fmt: skip
    return Course(None if kept.all() else kept, averaged, restarts, tuple(notes))


def _without_rewritten(
    steps: Steps, run: list[_Part], end: int, kept: NDArray[np.bool_]
) -> tuple[tuple[Restart, ...], int]:
    """Take out of `kept` what a restart went back over; return the restarts, and losses that were not written again."""
    restarts: list[Restart] = []
    lost = 0
    after = np.zeros(0, np.int64)
    for index in range(len(run) - 1, -1, -1):
        part = run[index]
        if len(after):
            back_to = int(after.min())
            kept[part.begin : end] &= steps[part.begin : end] < back_to
            over = np.unique(part.steps[part.steps >= back_to])
            again = int(np.isin(over, after).sum())
            lost += len(over) - again
            restarts.append(Restart(int(part.steps[-1]), int(run[index + 1].steps[0]), again))
        after, end = np.union1d(after, part.steps), part.begin
    return tuple(reversed(restarts)), lost
