"""Histogram of all N · V predicted probabilities over log10 p, with the sum of p and the targets in each bin."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lossprobe.scoring.statistics import CentredRows

# Whole numbers stand for a bin's sum of p where it must not depend on the order of the entries: units of p of
# 2^(exponent of the bin - MASS_BITS), so that each entry is rounded by less than a float32 rounds it. The number of
# entries and this sum share an int64, the number above PACKED_SHIFT: 8·10⁵ entries fit.
MASS_BITS = 22
PACKED_SHIFT = 43
MOST_ENTRIES = 800_000


@dataclass(frozen=True)
class HistogramBins:
    """Bins of a probability p by log10 p: `per_decade` bins a decade from 10^`lowest` to 1, and one below.

    Bin 0 holds p < 10^`lowest`, zero included. Bin b ≥ 1 holds
    lowest + (b − 1) / per_decade ≤ log10 p < lowest + b / per_decade; the last bin also holds p = 1.
    """

    lowest: int = -12
    per_decade: int = 10

    @property
    def count(self) -> int:
        """Return the number of bins, 121 by default."""
        return -self.lowest * self.per_decade + 1

    @property
    def per_nat(self) -> float:
        """Return the number of bins in one nat of log p, 4.34 by default."""
        return self.per_decade / math.log(10.0)

    @property
    def exponents(self) -> list[int]:
        """Return for each bin the power of 2 that is at most as large as its smallest p; bin 0 has that of bin 1."""
        lows = (self.lowest + (max(bin_, 1) - 1) / self.per_decade for bin_ in range(self.count))
        return [math.floor(low * math.log2(10.0)) for low in lows]

    def from_whole(self, histogram: torch.Tensor) -> torch.Tensor:
        """Return the histograms, float64, that whole numbers stand for.

        Args:
            histogram: int64 [3, ..., count]: entries, sums of p in units of 2^(exponent − MASS_BITS), targets.
        """
        found = histogram.double()
        exponents = torch.tensor(self.exponents, dtype=torch.float64, device=found.device)
        found[1] *= torch.exp2(exponents - MASS_BITS)
        return found

    def index(self, centred: CentredRows, out: torch.Tensor) -> torch.Tensor:
        """Write count + per_nat · log p of each entry to `out`, float32 [N, V]; its whole part is the entry's bin."""
        first = self.count - centred.log_sum * self.per_nat
        torch.add(first.float()[:, None], centred.shifted, alpha=self.per_nat, out=out)
        return out.clamp_(0.0, self.count - 1.0)


def probability_histogram(centred: CentredRows, targets: torch.Tensor, bins: HistogramBins) -> torch.Tensor:
    """Return the histogram of the V probabilities of each row over log10 p.

    Args:
        centred: the rows.
        targets: int64 [N], token ids.
        bins: the bins.

    Returns:
        float64 [3, N, bins.count]: for each bin the number of entries, their sum of p, and the number of targets (0 or
        1). Summed over the bins of a row they are V, 1 and 1.
    """
    spare, like = centred.workspace.empty, centred.shifted
    place = bins.index(centred, spare("scratch", like)).nan_to_num_(0.0)  # a NaN is reported by the loss, not here
    place.masked_fill_(torch.eq(centred.weight, 0.0), 0.0)
    index = spare("index", like, torch.long).copy_(place)
    found = centred.scale.new_zeros((3, len(targets), bins.count))
    found[0].scatter_add_(1, index, torch.ones((), dtype=torch.float64, device=like.device).expand_as(index))
    found[1].scatter_add_(1, index, spare("mass", like, torch.float64).copy_(centred.weight))
    found[1].mul_(centred.scale[:, None])
    found[2].scatter_(1, index.gather(1, targets[:, None]), 1.0)
    return found
