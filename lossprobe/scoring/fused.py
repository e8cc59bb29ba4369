"""Statistics, histograms and ladders of logit rows on a GPU, by fused kernels: the fast version of `statistics`.

The torch functions go over a chunk of logits some thirty times; the kernels read it twice. The logits themselves are in
memory, a chunk at a time: a kernel that also computes them would have to compute them twice, or to keep the histogram
of another log Z. To write and read a row costs 6 bytes an entry, 0.2 µs of an H200 for V = 128,000, where the matrix
products of an 8 B model take 20 µs.

Importing this module imports Triton; `accelerated` tells where it can be used.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from lossprobe.scoring import fused_kernels
from lossprobe.scoring.histogram import PACKED_SHIFT, HistogramBins
from lossprobe.scoring.statistics import RowStatistics

TILE, WARPS = 2048, 8  # entries that are worked on together, by this many warps of 32 threads: 8 entries a thread
LADDER_TILE = 1024
COPIES = 4  # of each bin, see `fused_kernels`
OCTAVES = 5


def measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, bins: HistogramBins, tile: int = TILE
) -> tuple[RowStatistics, torch.Tensor]:
    """Return the statistics of each row, and its histogram in whole numbers: int64 [3, N, bins.count].

    They are those of `statistics.row_statistics` and `histogram.probability_histogram`, up to rounding; the histogram
    is that of `HistogramBins.from_whole`. Nothing waits for the device.

    Args:
        logits: [N, V], float32, bfloat16 or float16; not modified. −inf entries are legal, NaN and +inf are not: they
            make the row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N], token ids; the loss of one that is no entry of its row is NaN.
        bins: bins of the histogram.
        tile: entries that are worked on together, a power of 2.
    """
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    rows, width = len(logits), 1 << (bins.count - 1).bit_length()
    floats = logits.new_empty((rows, 8), dtype=torch.float64)
    counts = logits.new_empty((rows, 5), dtype=torch.int32)
    packed = logits.new_zeros((rows, COPIES, width), dtype=torch.int64)
    if rows:
        with _on(logits.device):
            fused_kernels.measure_rows[(rows,)](
                logits, logits.stride(0), targets, _exponents(bins, logits.device), floats, counts, packed,
                logits.shape[1],
                BINS=bins.count, PER_NAT=bins.per_nat, WIDTH=width, COPIES=COPIES, TILE=tile, num_warps=WARPS,
            )  # fmt: skip
    return _statistics(floats, counts.long(), logits.shape[1]), _unpacked(packed, counts[:, 4].long(), bins)


def ladder_sums(logits: torch.Tensor, temperatures: list[float], tile: int = LADDER_TILE) -> torch.Tensor:
    """Return the sums of `ladder.ladder_sums`, computed on the GPU that holds the logits."""
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    factors = _factors(tuple(temperatures), logits.device)
    sums = logits.new_empty((len(logits), len(factors), OCTAVES), dtype=torch.float64)
    if len(logits):
        with _on(logits.device):
            fused_kernels.ladder_sums[(len(logits), len(factors))](
                logits, logits.stride(0), factors, sums, logits.shape[1],
                FACTORS=len(factors), TILE=tile, num_warps=WARPS,
            )  # fmt: skip
    return sums


def _statistics(floats: torch.Tensor, counts: torch.Tensor, vocab: int) -> RowStatistics:
    """Return the statistics that follow from the sums of `fused_kernels.measure_rows`."""
    top, target, second, others, mean_sum, spread, squares, plain = floats.unbind(dim=1)
    rank, ties, top_id, masked, _ = counts.unbind(dim=1)
    scale, log_sum, below = 1.0 / (1.0 + others), torch.log1p(others), target - top
    mean = mean_sum * scale
    return RowStatistics(
        loss_nats=log_sum - below,
        rank=rank,
        ties=ties,
        entropy_nats=log_sum - mean,
        varentropy=(spread * scale - (mean - mean.float().double()) ** 2).clamp(min=0.0),
        top_id=top_id,
        top_prob=scale,
        margin_nats=torch.where((rank == 0) & (ties == 1), top - second, below),
        log_z=top + log_sum,
        uniform_loss_nats=log_sum - plain / (vocab - masked),
        sum_p2=squares * scale**2,
        masked=masked,
    )


def _unpacked(packed: torch.Tensor, target_bins: torch.Tensor, bins: HistogramBins) -> torch.Tensor:
    both = packed.sum(dim=1)[:, : bins.count]
    hits = torch.zeros_like(both).scatter_(1, target_bins[:, None], 1)
    return torch.stack([both >> PACKED_SHIFT, both & ((1 << PACKED_SHIFT) - 1), hits])


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one, on which Triton starts its kernels."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _exponents(bins: HistogramBins, device: torch.device) -> torch.Tensor:
    return torch.tensor(bins.exponents, dtype=torch.int32, device=device)


@cache
def _factors(temperatures: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor([1.0 / each for each in temperatures], dtype=torch.float32, device=device)
