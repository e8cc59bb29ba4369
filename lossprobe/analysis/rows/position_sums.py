"""Losses by position, summed in one reading of the scored tokens: over ranges of it, and for the fit of a power law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.scored_rows import CellSums, scored_rows
from lossprobe.analysis.stats.jackknife import Clusters
from lossprobe.analysis.stats.power_law import FOLDS, FoldSums
from lossprobe.run.reader import Run

STEPS_PER_OCTAVE = 4  # bins of the fit

Range = tuple[int, int]  # first and last position


@dataclass(frozen=True)
class PositionSums:
    """The sums.

    Attributes:
        nats: one row per cluster with scored tokens, in order: `nats`, the loss of all its tokens, and for each range
            s0, s1, …, the loss of its tokens there (0 without any), and n0, n1, …, how many they are.
        ranges: the ranges in this order.
        folds: sums of bins of a quarter octave over each of at most 20 groups of clusters.
    """

    nats: pd.DataFrame = field(repr=False)
    ranges: list[Range]
    folds: FoldSums = field(repr=False)

    def over(self, ranges: Sequence[Range]) -> pd.DataFrame:
        """Return loss and tokens of each cluster in some of the ranges, two columns for each."""
        places = [self.ranges.index(each) for each in ranges]
        return self.nats[[f"{letter}{place}" for place in places for letter in "sn"]]


def position_sums(
    run: Run, clusters: Clusters, column: str, ranges: Sequence[Range], source: str = "tokens"
) -> PositionSums:
    """Return the sums of a run.

    Args:
        run: the run.
        clusters: what intervals resample.
        column: the position, an integer column of the source from 1 on.
        ranges: ranges of it, which may overlap.
        source: SQL relation with the columns of `tokens`.
    """
    sums = {each: CellSums(["nats"]) for each in ranges}
    whole, by_bin = CellSums(["nats"]), CellSums(["nats", "positions"], FOLDS)
    for rows in scored_rows(run, clusters, {"nats": "loss_nats", "position": column}, source):
        nats, position = rows.values["nats"], rows.values["position"]
        whole.add(rows.cluster, {"nats": nats})
        for (first, last), inside in sums.items():  # only its rows are added: most ranges are short
            places = np.flatnonzero((position >= first) & (position <= last))
            inside.add(rows.cluster.take(places), {"nats": nats.take(places)})
        quarter = np.floor(STEPS_PER_OCTAVE * np.log2(position + 1) + 1e-9).astype(np.int64)
        by_bin.add(quarter * FOLDS + rows.cluster % FOLDS, {"nats": nats, "positions": position})
    present = whole.present()
    frame = pd.DataFrame({"nats": whole.sums["nats"][present]})
    for place, inside in enumerate(sums.values()):
        inside.reach(len(whole.tokens))
        frame[f"s{place}"], frame[f"n{place}"] = inside.sums["nats"][present], inside.tokens[present]
    return PositionSums(frame, list(sums), _fold_sums(by_bin))


def _fold_sums(by_bin: CellSums) -> FoldSums:
    grids = np.moveaxis(by_bin.stacked(), -1, 0)
    tokens, nats, positions = np.ascontiguousarray(grids[:, :, grids[0].any(axis=0)])
    return FoldSums(tokens=tokens, nats=nats, positions=positions)
