"""The first of the two visits of `fused_kernels.measure_rows` alone: what its time lacks is that of the histogram."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from lossprobe.scoring.fused_kernels import first_visit


@triton.jit
def _first_visits(
    logits: tl.tensor, stride: tl.tensor, targets: tl.tensor, sums: tl.tensor, vocab: tl.tensor, TILE: tl.constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * stride
    target = tl.load(start + tl.load(targets + row)).to(tl.float32)
    top, top_id, largest, found, rest, mean_sum = first_visit(start, target, vocab, TILE)
    tl.store(sums + row, top + largest + rest + mean_sum + top_id + tl.sum(found, axis=0))


def first_visits(logits: torch.Tensor, targets: torch.Tensor, tile: int, warps: int) -> torch.Tensor:
    """Return a number that depends on all that the first visit finds, float64 [N]."""
    sums = logits.new_empty(len(logits), dtype=torch.float64)
    _first_visits[(len(logits),)](logits, logits.stride(0), targets, sums, logits.shape[1], TILE=tile, num_warps=warps)
    return sums
