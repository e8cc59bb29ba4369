"""Which checkpoints are better than others beyond noise, and from which on none is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lossprobe.analysis.rows.differences import TESTED_CLUSTERS, mean_changes
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.analysis.stats.significance import LEVEL, holm

RULE = (
    "improves beyond noise: a later checkpoint has a lower loss on the same tokens, by a paired t-test over {unit}s, "
    "p-values adjusted over all pairs of checkpoints (Holm, 5 %)"
)


@dataclass(frozen=True)
class Improvements:
    """The differences between the checkpoints of a series on the same tokens.

    Attributes:
        neighbours: one row for each checkpoint after the first, later − earlier: the columns of
            `differences.mean_changes`, with p_holm (adjusted over all pairs of checkpoints) and significant (missing
            where no test was possible).
        tests: how many pairs were tested.
        settled: the place of the first checkpoint that no later one is better than beyond noise; None without a test.
        best: the place of the checkpoint with the lowest loss.
        worse_at_end: whether the last checkpoint is worse than the best one beyond noise; None without a test.
    """

    neighbours: pd.DataFrame = field(repr=False)
    tests: int
    settled: int | None
    best: int
    worse_at_end: bool | None


def find_improvements(nats: Floats, tokens: Floats) -> Improvements:
    """Return the differences between all K checkpoints.

    A checkpoint may be no better than its neighbour beyond noise and yet better than the one before that. So every
    pair is tested, and Holm's rule holds over all of them: the chance that any two equal checkpoints are told apart is
    at most 5 %.

    Args:
        nats: float64 [K, G], sums of the losses of each cluster, K ≥ 2.
        tokens: float64 [G], how many tokens each has.
    """
    count = len(nats)
    earlier, later = np.triu_indices(count, 1)
    changes = mean_changes(nats[later] - nats[earlier], np.broadcast_to(tokens, (len(later), len(tokens))))
    changes["p_value"] = changes["p_value"].where(changes["clusters"] >= TESTED_CLUSTERS)
    changes["p_holm"] = holm(changes["p_value"].to_numpy(float))
    tested = changes["p_holm"].notna()
    changes["significant"] = (changes["p_holm"] < LEVEL).astype("boolean").where(tested)
    table = changes.drop(columns="contribution_nats")
    neighbours = table[later == earlier + 1].reset_index(drop=True)
    best = int(nats.sum(axis=1).argmin())
    if not tested.any():
        return Improvements(neighbours, 0, None, best, None)
    clear, mean = (table[name].to_numpy(bool if name == "significant" else float)
                   for name in ("significant", "mean_difference_nats"))  # fmt: skip
    improved_on = {int(place) for place in earlier[clear & (mean < 0)]}
    settled = next(place for place in range(count) if place not in improved_on)
    at_end = (earlier == best) & (later == count - 1)
    return Improvements(neighbours, int(tested.sum()), settled, best, bool((clear & (mean > 0) & at_end).any()))
