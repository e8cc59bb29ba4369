"""A step in the loss where a run went on after a restart."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import JUMP_LEVEL, JUMP_NOISE, JUMP_ROWS
from lossprobe.analysis.curve.noise import scale
from lossprobe.analysis.curve.seen import Seen
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

WIDE = 30  # rows on each side that the noise is taken from


def restart_jump(seen: Seen) -> Iterator[Finding]:
    """Yield each restart at which the training loss steps up or down beyond its noise."""
    train = seen.train
    for restart in seen.log.restarts:
        row = int(np.searchsorted(train.steps, restart.next_step))
        before, after = train.values[max(0, row - JUMP_ROWS) : row], train.values[row : row + JUMP_ROWS]
        if min(len(before), len(after)) < 3:
            continue
        wide = train.values[max(0, row - WIDE) : row], train.values[row : row + WIDE]
        noise = max(scale(wide[0]), scale(wide[1]))
        left, right = float(before.mean()), float(after.mean())
        # Without a restart the loss would go on as before: one that falls fast is no step.
        slope = (left - float(wide[0][:JUMP_ROWS].mean())) / max(1, len(wide[0]) - JUMP_ROWS)
        jump = right - left - min(0.0, slope) * (len(before) + len(after)) / 2.0
        error = noise * math.sqrt(1.0 / len(before) + 1.0 / len(after))
        if abs(jump) < max(JUMP_NOISE * error, JUMP_LEVEL * abs(left)):
            continue
        evidence = (
            f"the run went on at step {format_count(restart.next_step)} after step {format_count(restart.last_step)}; "
            f"{train.key} was {left:.4g} before and {right:.4g} after"
        )
        half = float(t_quantile(len(before) + len(after))) * error
        last = train.step(min(row + len(after), len(train)) - 1)
        yield Finding(
            DIAGNOSES["restart-jump"], train.key, train.step(row), last, jump, "nats", evidence,
            Interval(jump - half, jump + half),
        )  # fmt: skip
