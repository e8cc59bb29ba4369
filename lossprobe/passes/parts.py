"""Scores and stores parts of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from lossprobe.passes.engines import Engine, Part, PartOptions, Parts
from lossprobe.run.part_store import PartStore
from lossprobe.text.documents import Source
from lossprobe.units import plural, visible

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


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
        source.notices.append(f"{visible(str(store.path), 200)}: {told} damaged since, and scored again")
    first_rows = [0, *accumulate(rows)]
    done = ahead = total - sum(rows[index] for index in pending)
    progress(done, total)

    def advance(scored: int) -> None:
        nonlocal ahead
        ahead += scored
        progress(ahead, total)

    planned = Parts(pending, lambda index: Part(index, store.read_plan_part(index), first_rows[index]))
    for part, scores in engine.score(planned, options, advance):
        store.write_part(part.index, part.rows, scores)
        done += rows[part.index]
        ahead = max(ahead, done)  # some parts are scored together, and stored one after the other
        progress(ahead, total)
    return len(pending)
