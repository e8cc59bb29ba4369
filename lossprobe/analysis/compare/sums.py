"""Computes moments and histograms of two losses per token in one pass, in memory that does not grow with the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.clusters import numbering, present_clusters
from lossprobe.analysis.rows.differences import DifferenceSums, finite_batches, transitions
from lossprobe.analysis.rows.outcomes import CORRECT
from lossprobe.analysis.rows.paired import Ints, PairedRows
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.octaves import OCTAVES, octaves
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.run.reader import Run

COLUMNS, OF_FIRST = {"nats": "loss_nats", "correct": CORRECT}, {"context": "context"}
BINS_PER_OCTAVE = 64  # a bin of |d| ends 1.1 % above its start
SMALLEST, LARGEST = -40, 14  # octaves of |d| in nats; what is smaller or larger shares a bin
SIZE_BINS = (LARGEST - SMALLEST) * BINS_PER_OCTAVE + 1
SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CELL_NATS, OPEN_FROM_NATS = 0.25, 20.0
SIDE = round(OPEN_FROM_NATS / CELL_NATS) + 1


@dataclass
class Moments:
    """Count, means and summed products of deviations of (first loss, second loss, d), merged batch by batch.

    Merging deviations (Chan, Golub & LeVeque 1983) does not cancel as sums of squares do.
    """

    count: int = 0
    mean: Floats = field(default_factory=lambda: np.zeros(3))
    products: Floats = field(default_factory=lambda: np.zeros((3, 3)), repr=False)

    def add(self, losses: Floats) -> None:
        """Add the losses of n tokens under both models, float64 [2, n]."""
        values = np.stack([*losses, losses[1] - losses[0]])
        added = values.shape[1]
        if not added:
            return
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        step, total = mean - self.mean, self.count + added
        self.products += centred @ centred.T + np.outer(step, step) * (self.count * added / total)
        self.mean = self.mean + step * (added / total)
        self.count = total

    @property
    def sd_difference(self) -> float | None:
        """Standard deviation of d, with n − 1; None for fewer than two tokens."""
        return float(np.sqrt(self.products[2, 2] / (self.count - 1))) if self.count > 1 else None

    @property
    def correlation(self) -> float | None:
        """Pearson correlation of the two losses; None where one of them never varies."""
        scale = float(np.sqrt(self.products[0, 0] * self.products[1, 1]))
        return float(np.clip(self.products[0, 1] / scale, -1.0, 1.0)) if scale > 0.0 else None


@dataclass
class ChangeSizes:
    """A histogram of |d| by its logarithm, with count and sum of each bin: as good as sorted to 1.1 %."""

    counts: Floats = field(default_factory=lambda: np.zeros(SIZE_BINS), repr=False)
    sums: Floats = field(default_factory=lambda: np.zeros(SIZE_BINS), repr=False)

    def add(self, difference: Floats) -> None:
        """Add the d of n tokens."""
        size = np.abs(difference)
        octave = np.log2(np.maximum(size, 2.0**SMALLEST)) - SMALLEST
        index = np.minimum((octave * BINS_PER_OCTAVE).astype(np.int64), len(self.counts) - 1)
        self.counts += np.bincount(index, minlength=len(self.counts))
        self.sums += np.bincount(index, size, len(self.counts))

    def table(self) -> pd.DataFrame:
        """Return which share of Σ |d| the most changed `SHARES` of the tokens carry; NaN where nothing changed.

        Inside a bin all tokens count as its mean, which is at most 1.1 % from any of them.

        >>> sizes = ChangeSizes()
        >>> sizes.add(np.array([-3.0, 1.0, 0.5, 0.5, 0, 0, 0, 0, 0, 0]))
        >>> table = sizes.table().set_index("share_of_tokens")["share_of_change"]
        >>> table[[0.05, 0.1, 0.2, 0.5]].round(6).tolist()
        [0.3, 0.6, 0.8, 1.0]
        """
        counts = np.concatenate([[0.0], self.counts[::-1].cumsum()])
        sums = np.concatenate([[0.0], self.sums[::-1].cumsum()])
        reached = np.interp(np.array(SHARES) * counts[-1], counts, sums)
        whole = float(sums[-1])
        change = reached / whole if whole > 0.0 else np.full(len(SHARES), np.nan)
        return pd.DataFrame({"share_of_tokens": SHARES, "share_of_change": change})


@dataclass
class LossPairs:
    """A histogram of both losses in cells of a quarter nat; the last row and column are open."""

    counts: Floats = field(default_factory=lambda: np.zeros((SIDE, SIDE)), repr=False)

    def add(self, losses: Floats) -> None:
        """Add the losses of n tokens under both models, float64 [2, n]."""
        cell = np.minimum(losses, OPEN_FROM_NATS) / CELL_NATS
        first, second = np.maximum(cell, 0.0).astype(np.int64)
        self.counts += np.bincount(first * SIDE + second, minlength=SIDE * SIDE).reshape(SIDE, SIDE)

    def table(self) -> pd.DataFrame:
        """Return the cells that hold tokens: first_low_nats, second_low_nats, width_nats, count."""
        first, second = np.nonzero(self.counts)
        return pd.DataFrame(
            {
                "first_low_nats": first * CELL_NATS,
                "second_low_nats": second * CELL_NATS,
                "width_nats": CELL_NATS,
                "count": self.counts[first, second].astype(np.int64),
            }
        )


@dataclass
class CompareSums:
    """The sums of one pass over two runs.

    Attributes:
        by_octave: sums of d by octave of context and cluster.
        correct: float64 [clusters], sums of the difference in right first choices.
        losses, sizes, pairs: see their classes.
        forgotten, learned: tokens by `differences.transitions`.
        left_out: tokens that only one run scored.
        longest: largest context of a token.
    """

    by_octave: DifferenceSums
    correct: Floats
    losses: Moments = field(default_factory=Moments)
    sizes: ChangeSizes = field(default_factory=ChangeSizes)
    pairs: LossPairs = field(default_factory=LossPairs)
    forgotten: int = 0
    learned: int = 0
    left_out: int = 0
    longest: int = 0

    def add(self, rows: PairedRows, cluster: Ints) -> None:
        """Add rows with the columns of `COLUMNS` and `OF_FIRST`, and the number of the cluster of each from 0 on."""
        self.left_out += rows.left_out
        if not len(rows.token):
            return
        losses, correct, context = (rows.values[name] for name in (*COLUMNS, *OF_FIRST))
        difference = losses[1] - losses[0]
        self.by_octave.add(octaves(context[0]), cluster, difference)
        np.add.at(self.correct, cluster, correct[1] - correct[0])
        self.losses.add(losses)
        self.sizes.add(difference)
        self.pairs.add(losses)
        forgotten, learned = transitions(losses)
        self.forgotten += int(forgotten.sum())
        self.learned += int(learned.sum())
        self.longest = max(self.longest, int(context[0].max()))


def compare_sums(
    first: Run, second: Run, clusters: Clusters, beside: Callable[[PairedRows], None] | None = None
) -> CompareSums:
    """Return the sums of two runs of the same tokens; contexts and clusters are those of the first.

    Args:
        first: the run to compare with.
        second: the other run.
        clusters: what intervals resample.
        beside: is given all rows too, so that they need not be read again.

    Raises:
        NotComparableError: the rows of the runs are not the same tokens.
        OutputError: a stored number is missing, NaN or infinite, which scoring never writes.
    """
    present = present_clusters(first, clusters)
    number = numbering(present)
    sums = CompareSums(DifferenceSums((OCTAVES, len(present))), np.zeros(len(present)))
    for rows in finite_batches((first, second), COLUMNS, clusters, OF_FIRST):
        sums.add(rows, number(rows.cluster))
        if beside is not None:
            beside(rows)
    return sums
