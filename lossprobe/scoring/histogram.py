"""How probabilities are spread: all N · V of them in bins of log10 p, with their sums and the targets among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lossprobe.scoring.statistics import CentredRows

LN10 = math.log(10.0)
LANES, SHORT = 4, 4096  # a row with fewer entries has one lane: clearing four would cost more than they save
HISTOGRAM_ELEMENTS = 1 << 19  # worked on at once: with 24 bytes each they stay in the cache


def probability_histogram(
    centred: CentredRows, targets: torch.Tensor, groups: torch.Tensor, group_count: int, bins: HistogramBins
) -> torch.Tensor:
    """Return how all N · V probabilities are spread over log10 p, per group of rows.

    Args:
        centred: the rows.
        targets: int64 [N].
        groups: int64 [N], group (document) of each row, below `group_count`.
        group_count: number of groups.
        bins: the bins.

    Returns:
        float64 [3, group_count, bins.count]: pairs (row, entry), sum of p, and hits (targets) per bin. Summed
        over bins, a group of n rows has n · V pairs, a probability mass of n and n hits.
    """
    size = max(1, HISTOGRAM_ELEMENTS // centred.shifted.shape[-1])
    total = centred.scale.new_zeros((3, group_count, bins.count))
    for start in range(0, len(targets), size):
        block = slice(start, start + size)
        total.index_add_(1, groups[block], _row_histograms(centred.take(block), targets[block], bins))
    return total


def _row_histograms(centred: CentredRows, targets: torch.Tensor, bins: HistogramBins) -> torch.Tensor:
    """Return pairs, sum of p and hits per bin of every row, float64 [3, N, bins.count].

    Neighbouring entries are added in lanes of their own: often they fall into the same bin, and adding to one place
    again and again waits for the addition before.
    """
    spare, like = centred.workspace.empty, centred.shifted
    lanes = LANES if like.shape[-1] >= SHORT else 1
    place = bins.index(centred, spare("scratch", like))
    if bool(centred.masked.any()):
        place.masked_fill_(centred.weight == 0.0, 0.0)
    number = spare("number", like, torch.int32).copy_(place)
    hits = number.gather(1, targets[:, None]).long()
    lane = torch.arange(like.shape[-1], dtype=torch.int32, device=like.device).remainder_(lanes).mul_(bins.count)
    index = spare("index", like, torch.long).copy_(number.add_(lane))
    sums = centred.scale.new_zeros((2, len(targets), lanes * bins.count))
    sums[0].scatter_add_(1, index, spare("mass", like, torch.float64).fill_(1.0))
    sums[1].scatter_add_(1, index, spare("mass", like, torch.float64).copy_(centred.weight))
    sums[1].mul_(centred.scale[:, None])
    found = sums.view(2, len(targets), lanes, bins.count).sum(dim=2)
    return torch.cat([found, torch.zeros_like(found[:1]).scatter_(2, hits[None], 1.0)])


@dataclass(frozen=True)
class HistogramBins:
    """Bins over log10 p: `per_decade` bins a decade from 10^`lowest` to 1, and one below them.

    Bin 0 holds everything under 10^`lowest`, zero included; bin b ≥ 1 holds
    lowest + (b − 1) / per_decade ≤ log10 p < lowest + b / per_decade, the last one also p = 1.
    """

    lowest: int = -12
    per_decade: int = 10

    @property
    def count(self) -> int:
        """Number of bins, 121 by default."""
        return -self.lowest * self.per_decade + 1

    def index(self, centred: CentredRows, out: torch.Tensor) -> torch.Tensor:
        """Return the bin of every probability, as floats whose whole part it is; float32 [N, V] in `out`."""
        per_nat = self.per_decade / LN10
        start = -centred.log_sum * per_nat - self.lowest * self.per_decade + 1.0
        torch.add(start.float()[:, None], centred.shifted, alpha=per_nat, out=out)
        return out.clamp_(0.0, self.count - 1.0)
