"""Scores and stores parts of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from lossprobe.passes.engines import Engine, Part, PartOptions, Parts, stage_of
from lossprobe.plan.rows import Rows
from lossprobe.run.manifest import FIRST_WINDOWS
from lossprobe.run.part_store import PartStore
from lossprobe.text.documents import Source
from lossprobe.units import plural

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


class Counted:
    """Tells how far the parts of a plan are.

    Args:
        rows: number of rows of each part of the plan.
        pending: numbers of the parts that are to be done.
        total: rows to do, those that are done included.
        progress: called with the rows done and `total`, now and whenever some more are done.
    """

    def __init__(self, rows: Sequence[int], pending: Iterable[int], total: int, progress: Progress) -> None:
        self._rows, self._total, self._progress = rows, total, progress
        self._done = self._ahead = total - sum(rows[index] for index in pending)
        progress(self._done, total)

    def advance(self, rows: int) -> None:
        """Tell of some rows of a part that is not stored yet; a negative number takes them back."""
        self._ahead += rows
        self._progress(self._ahead, self._total)

    def stored(self, index: int) -> None:
        """Tell that a part is stored."""
        self._done += self._rows[index]
        self._ahead = max(self._ahead, self._done)  # some parts are scored together, and stored one after the other
        self._progress(self._ahead, self._total)


def score_parts(  # noqa: PLR0913 - which parts, who scores and stores them, and who is told
    store: PartStore,
    engine: Engine,
    plan: dict[str, Any],
    options: PartOptions,
    source: Source,
    progress: Progress,
    parts: Iterable[int] | None = None,
) -> int:
    """Score and store every part that is missing or damaged; return how many these were.

    Args:
        store: the folder of the run.
        engine: scores the parts.
        plan: the stored plan.
        options: how parts are scored.
        source: the text, for its notices.
        progress: called with the tokens done and those to do, of the parts asked for.
        parts: the numbers of the parts asked for; None for all.
    """
    rows = plan["part_rows"]
    wanted = range(len(rows)) if parts is None else list(parts)
    total = sum(rows[index] for index in wanted)
    pending, broken = store.pending(wanted)
    if broken:
        told = plural(len(broken), "finished part")
        source.notices.append(f"{store.shown}: {told} damaged since, and scored again")
    first_rows = [0, *accumulate(rows)]
    stage_of(progress)("")  # tokenizing is over; of several passes with one display, each has its own
    counted = Counted(rows, pending, total, progress)
    planned = Parts(pending, lambda index: Part(index, _planned(store, plan, index), first_rows[index]))
    for part, scores in engine.score(planned, options, counted.advance):
        store.write_part(part.index, part.rows, scores)
        counted.stored(part.index)
    return len(pending)


def _planned(store: PartStore, plan: dict[str, Any], index: int) -> Rows:
    """Return the rows that one part is to score, with the windows of the whole run."""
    rows = store.read_plan_part(index)
    first_windows = plan.get(FIRST_WINDOWS)  # plans of earlier versions have none: their windows are those of the run
    return rows if not first_windows else replace(rows, window=rows.window + first_windows[index])
