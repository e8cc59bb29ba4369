"""Loss at one range of context against another, over the texts that have both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from lossprobe.analysis.rows.position_sums import PositionSums, Range, position_sums
from lossprobe.analysis.stats.interval import NO_INTERVAL, Interval
from lossprobe.analysis.stats.jackknife import Clusters, around
from lossprobe.run.reader import Run

BEGINNING, FIRST, REACH, END = "beginning", "first tokens", "reach", "end"
EARLY_CONTEXT = 32  # tokens; fewer are the beginning
LEAST_CONTEXT = 64  # tokens that the longest context must have


@dataclass(frozen=True)
class ContextContrast:
    """The mean loss at one range of context minus that at another, over the documents or blocks that have both.

    Attributes:
        name: "beginning" (fewer than 32 tokens of context against all others), "first tokens" (1 to 3 against 4 to 31),
            "reach" (1 to 7 against 32 and more), or "end" (the second quarter of the window against its last half).
        first, last: contexts of the range.
        against_first, against_last: contexts of the other one.
        difference_nats: mean loss of the range minus that of the other one, and its interval.
        clusters: documents or blocks that have both.
        share_of_loss: the difference times the tokens of the range, of the total loss: what the range costs beyond the
            level of the other.
    """

    name: str
    first: int
    last: int
    against_first: int
    against_last: int
    difference_nats: float
    difference_nats_interval: Interval
    clusters: int
    share_of_loss: float


def context_contrasts(run: Run, clusters: Clusters, largest: int) -> list[ContextContrast]:
    """Return the contrasts of a run; none where the longest context is shorter than 64 tokens.

    "end" is there only where a window is used up: without that, the longest context is the longest document.

    Args:
        run: the run.
        clusters: what intervals resample.
        largest: the longest context of a scored token.
    """
    ranges = contrast_ranges(run, largest)
    return contrasts_of(position_sums(run, clusters, "context", list(chain(*ranges.values()))), ranges)


def contrast_ranges(run: Run, largest: int) -> dict[str, tuple[Range, Range]]:
    """Return the two ranges of each contrast that `context_contrasts` gives."""
    if largest < LEAST_CONTEXT:
        return {}
    late = (EARLY_CONTEXT, largest)
    ranges = {
        BEGINNING: ((1, EARLY_CONTEXT - 1), late),
        FIRST: ((1, 3), (4, EARLY_CONTEXT - 1)),
        REACH: ((1, 7), late),
    }
    if largest >= run.context - 1:
        ranges[END] = ((largest // 4 + 1, largest // 2), (largest // 2 + 1, largest))
    return ranges


def contrasts_of(sums: PositionSums, ranges: Mapping[str, tuple[Range, Range]]) -> list[ContextContrast]:
    """Return the contrasts of ranges over which `rows.position_sums` has summed."""
    total, found = float(sums.nats["nats"].sum()), []
    for name, (range_, other) in ranges.items():
        near, far = (sums.over([each]).to_numpy(float) for each in (range_, other))
        both = (near[:, 1] > 0) & (far[:, 1] > 0)
        if not both.any():
            continue
        size, near, far = near[:, 1].sum(), near[both], far[both]
        (s, n), (other_s, other_n) = near.sum(axis=0), far.sum(axis=0)
        difference, interval = float(s / n - other_s / other_n), NO_INTERVAL
        if len(near) > 1:
            without = (s - near[:, 0]) / (n - near[:, 1]) - (other_s - far[:, 0]) / (other_n - far[:, 1])
            interval = around(difference, without).interval
        cost = difference * size / total if total > 0 else 0.0
        found.append(ContextContrast(name, *range_, *other, difference, interval, len(near), float(cost)))
    return found
