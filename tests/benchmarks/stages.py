"""Measures how much time each stage of scoring takes, by wrapping the functions of the stages."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any
from unittest import mock

from lossprobe.passes import prepared
from lossprobe.run.store import RunStore
from lossprobe.scoring import head, measure


class Clock:
    """Adds up the seconds of named stages; the time of a stage inside another counts only for the inner one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner = [0.0]

    def timed(self, stage: str, function: Any) -> Any:
        """Return a function that calls `function` and adds its time to a stage."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                spent = time.perf_counter() - start
                self.seconds[stage] += spent - self._inner.pop()
                self._inner[-1] += spent

        return run


class TimedCheckpoint:
    """A checkpoint whose body, head and tokenizer are timed."""

    def __init__(self, checkpoint: Any, clock: Clock) -> None:
        self.facts = checkpoint.facts
        self.tokenizer = checkpoint.tokenizer
        self.hidden = clock.timed("body", checkpoint.hidden)
        self.logits = clock.timed("head", checkpoint.logits)


def share_of_stages(ours: Any) -> str:
    """Return one line with the share of each stage in the time of one pass."""
    clock = Clock()
    checkpoint = TimedCheckpoint(ours.checkpoint, clock)
    with (
        mock.patch.object(prepared, "write_plan", clock.timed("tokenize and plan", prepared.write_plan)),
        mock.patch.object(RunStore, "write_part", clock.timed("write", RunStore.write_part)),
        mock.patch.object(measure, "run_head", clock.timed("rows", measure.run_head)),
        mock.patch.object(head, "measure_chunk", clock.timed("statistics and ladder", head.measure_chunk)),
    ):
        start = time.perf_counter()
        tokens = ours.score(checkpoint=checkpoint)
        whole = time.perf_counter() - start
    clock.seconds["rest"] = whole - sum(clock.seconds.values())
    parts = (
        f"{stage} {spent / whole:.1%} ({spent / tokens * 1e6:.1f} us)" for stage, spent in clock.seconds.most_common()
    )
    return f"stages of one pass: {', '.join(parts)}"
