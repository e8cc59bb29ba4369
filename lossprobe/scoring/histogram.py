"""How probabilities are spread: all N · V of them in bins of log10 p, with their sums and the targets among them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lossprobe.scoring.statistics import CentredRows


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

    @property
    def per_nat(self) -> float:
        """Bins in a nat of log p."""
        return self.per_decade / math.log(10.0)

    def index(self, centred: CentredRows, out: torch.Tensor) -> torch.Tensor:
        """Return count + per_nat · log p, whose whole part is the bin of that probability; float32 [N, V] in `out`."""
        first = self.count - centred.log_sum * self.per_nat
        torch.add(first.float()[:, None], centred.shifted, alpha=self.per_nat, out=out)
        return out.clamp_(0.0, self.count - 1.0)


def probability_histogram(centred: CentredRows, targets: torch.Tensor, bins: HistogramBins) -> torch.Tensor:
    """Return how all V probabilities of each row are spread over log10 p.

    Args:
        centred: the rows.
        targets: int64 [N].
        bins: the bins.

    Returns:
        float64 [3, N, bins.count]: entries, their sum of p, and hits (the target) in each bin. Summed over bins, a row
        has V entries, a probability mass of 1 and one hit.
    """
    spare, like = centred.workspace.empty, centred.shifted
    place = bins.index(centred, spare("scratch", like)).nan_to_num_(0.0)  # the loss tells of a NaN, not a bad index
    place.masked_fill_(torch.eq(centred.weight, 0.0), 0.0)
    index = spare("index", like, torch.long).copy_(place)
    found = centred.scale.new_zeros((3, len(targets), bins.count))
    found[0].scatter_add_(1, index, torch.ones((), dtype=torch.float64, device=like.device).expand_as(index))
    found[1].scatter_add_(1, index, spare("mass", like, torch.float64).copy_(centred.weight))
    found[1].mul_(centred.scale[:, None])
    found[2].scatter_(1, index.gather(1, targets[:, None]), 1.0)
    return found
