"""A training loss that falls where an epoch begins and not inside epochs: the text is known by heart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import EDGE_LEVEL, EDGE_NOISE, EDGE_SHARE, FEWEST_PER_EPOCH
from lossprobe.analysis.curve.noise import Floats, line_at
from lossprobe.analysis.curve.seen import Points, Seen
from lossprobe.analysis.stats.interval import Interval
from lossprobe.analysis.stats.jackknife import t_quantile
from lossprobe.units import format_count

SKIPPED = 0.02  # of an epoch, about an edge: epochs are rounded to two decimals, and a row is a mean over both
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
    edges = edges_of(train, train.epochs)
    if not edges:
        return
    falls = sum(edge.fall for edge in edges)
    error = math.sqrt(sum(edge.error**2 for edge in edges))
    last = train.values[train.epochs >= math.ceil(train.epochs[-1]) - 1.0 + SKIPPED]
    whole = edges[0].level - float(np.mean(last[-max(3, len(last) // 2) :]))
    mean = falls / len(edges)
    if falls <= EDGE_NOISE * error or falls < EDGE_LEVEL * edges[0].level or falls < EDGE_SHARE * whole:
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


def edges_of(train: Points, epochs: Floats) -> list[Edge]:
    """Return the falls at the edges of epochs that have rows enough on both sides."""
    found = []
    for edge in range(1, math.ceil(float(epochs[-1]))):
        before = np.flatnonzero((epochs > edge - FITTED) & (epochs < edge - SKIPPED))
        after = np.flatnonzero((epochs > edge + SKIPPED) & (epochs < edge + FITTED))
        if min(len(before), len(after)) * 2 < FEWEST_PER_EPOCH:
            continue
        left, left_error = line_at(epochs[before] - edge, train.values[before])
        right, right_error = line_at(epochs[after] - edge, train.values[after])
        found.append(Edge(train.step(int(after[0])), left - right, math.hypot(left_error, right_error), left))
    return found
