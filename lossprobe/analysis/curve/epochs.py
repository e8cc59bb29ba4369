"""A training loss that falls where an epoch begins and not inside epochs: the text is known by heart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import EDGE_LEVEL, EDGE_NOISE, EDGE_SHARE, FEWEST_PER_EPOCH
from lossprobe.analysis.curve.noise import Floats, levels, line_at
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

SKIPPED = 0.02  # of an epoch, about an edge: epochs are rounded to two decimals, and a row is a mean over both
USUAL = 0.5  # of the mean fall: the median, so that not one edge makes them all
POINTS = 12  # of a line
MOST_EDGES = 1000  # the first ones: text that is seen so often is known by then
FITTED = 0.5  # of an epoch, on each side of an edge


@dataclass(frozen=True)
class Edge:
    """A fall from one epoch to the next: its step, size and standard error in nats, and the level before."""

    step: int
    fall: float
    error: float
    level: float


def memorising(seen: Seen) -> Iterator[Finding]:
    """Yield where most of what the training loss falls after the first epoch, it falls at the edges of epochs."""
    train = seen.train
    if train.epochs is None or not len(train) or not np.isfinite(train.epochs).all():
        return
    edges = edges_of(seen, train.epochs)
    if not edges:
        return
    falls = sum(edge.fall for edge in edges)
    error = math.sqrt(sum(edge.error**2 for edge in edges))
    last = train.values[train.epochs >= train.epochs[-1] - FITTED]
    whole = edges[0].level - float(np.mean(last[-max(3, len(last) // 2) :]))
    mean = falls / len(edges)
    usual = float(np.median([edge.fall for edge in edges]))
    if (
        falls <= EDGE_NOISE * error
        or usual < USUAL * mean
        or falls < EDGE_LEVEL * edges[0].level
        or falls < EDGE_SHARE * whole
    ):
        return
    shown = ", ".join(f"{edge.fall:.3g} at step {format_count(edge.step)}" for edge in edges[:4])
    inside = f"{'rises' if falls > whole else 'falls'} by {abs(whole - falls):.3g} nats inside them after the first"
    more = " …" if len(edges) > len(edges[:4]) else ""
    evidence = f"{train.key} falls by {shown}{more}, where epochs begin, and {inside}"
    half = float(t_quantile(len(train))) * error / len(edges)
    interval = Interval(mean - half, mean + half)
    yield Finding(
        DIAGNOSES["memorising"], train.key, edges[0].step, edges[-1].step, mean, "nats an epoch", evidence, interval
    )


def edges_of(seen: Seen, epochs: Floats) -> list[Edge]:
    """Return the falls at the edges of epochs that have rows enough on both sides, and no restart near."""
    train = seen.train
    restarts = np.searchsorted(train.steps, [restart.next_step for restart in seen.log.restarts])
    first, last = math.floor(float(epochs[0])) + 1, math.ceil(float(epochs[-1]))
    if (last - first) * FEWEST_PER_EPOCH > len(train) or (np.diff(epochs) < 0.0).any():
        return []
    found = []
    for edge in range(first, min(last, first + MOST_EDGES)):
        near, far = (_edge(train, epochs, float(edge), width) for width in (FITTED / 2.0, FITTED))
        if far is None or any(abs(epochs[min(row, len(train) - 1)] - edge) < FITTED for row in restarts):
            continue
        # Where the loss is curved, lines through more rows miss it by more.
        found.append(far if near is None else replace(far, fall=min(near.fall, far.fall)))
    return found


def _edge(train: Points, epochs: Floats, edge: float, width: float) -> Edge | None:
    """Return what lines through the rows of so much of an epoch on each side say of an edge; None with few rows.

    The lines go through medians of neighbouring rows, which a spike does not move.
    """
    ends = np.searchsorted(epochs, (edge - width, edge - SKIPPED, edge + SKIPPED, edge + width))
    sides = [slice(ends[0], ends[1]), slice(ends[2], ends[3])]
    if min(ends[1] - ends[0], ends[3] - ends[2]) < FEWEST_PER_EPOCH * width:
        return None
    fits = [line_at(levels(epochs[side], POINTS)[0] - edge, levels(train.values[side], POINTS)[0]) for side in sides]
    (left, left_error), (right, right_error) = fits
    return Edge(train.step(int(ends[2])), left - right, math.hypot(left_error, right_error), left)
