"""A step in the loss where a run went on after a restart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import JUMP_LEVEL, JUMP_NOISE, JUMP_ROWS
from lossprobe.analysis.curve.noise import line_at
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

FEWEST = 5


@dataclass(frozen=True)
class Jump:
    """A step at a restart in nats: its size and standard error, and the loss on both sides."""

    value: float
    error: float
    before: float
    after: float


def restart_jump(seen: Seen) -> Iterator[Finding]:
    """Yield each restart at which the training loss steps up or down beyond its noise."""
    train = seen.train
    for restart in seen.log.restarts:
        row = int(np.searchsorted(train.steps, restart.next_step))
        near, far = (_jump(train, row, rows) for rows in (JUMP_ROWS // 2, JUMP_ROWS))
        if near is None or far is None or near.value * far.value < 0.0:
            continue
        # Where the loss is curved, lines through more rows miss it by more.
        jump = min(near.value, far.value, key=abs)
        if abs(jump) < max(JUMP_NOISE * far.error, JUMP_LEVEL * abs(far.before)):
            continue
        evidence = (
            f"the run went on at step {format_count(restart.next_step)} after step {format_count(restart.last_step)}; "
            f"{train.key} was {far.before:.4g} before and {far.after:.4g} after"
        )
        half = float(t_quantile(2 * JUMP_ROWS - 3)) * far.error
        last = train.step(min(row + JUMP_ROWS, len(train)) - 1)
        yield Finding(
            DIAGNOSES["restart-jump"], train.key, train.step(row), last, jump, "nats", evidence,
            Interval(jump - half, jump + half),
        )  # fmt: skip


def _jump(train: Points, row: int, rows: int) -> Jump | None:
    """Return by how much lines through so many rows on each side of a row miss each other there."""
    before, after = train.values[max(0, row - rows) : row], train.values[row : row + rows]
    if min(len(before), len(after)) < FEWEST:
        return None
    left, left_error = line_at(np.arange(-len(before), 0, dtype=np.float64) + 0.5, before)
    right, right_error = line_at(np.arange(len(after), dtype=np.float64) + 0.5, after)
    return Jump(right - left, math.hypot(left_error, right_error), left, right)
