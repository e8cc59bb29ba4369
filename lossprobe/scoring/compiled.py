"""Statistics and histograms of logit rows on a CPU, by compiled loops: the fast version of `statistics`, `histogram`.

The loops themselves are in `kernels` and `ladder_kernels`, what compiles and caches them in `compiler`.
"""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import torch

from lossprobe.compiler import compile_apart, share_threads
from lossprobe.scoring import kernels, ladder_kernels
from lossprobe.scoring.histogram import HistogramBins
from lossprobe.scoring.statistics import RowStatistics, Workspace

COMPILE = "from lossprobe.scoring.compiled import compile_loops; compile_loops()"
LOG2E = 1.0 / math.log(2.0)
WHOLE = ("rank", "ties", "top_id", "masked")


def measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> tuple[RowStatistics, torch.Tensor]:
    """Return the statistics of each row, and float64 [3, N, bins.count] its histogram.

    They are those of `statistics.row_statistics` and `histogram.probability_histogram`, up to rounding.

    Args:
        logits: [N, V] in any float dtype, on the CPU; not modified. −inf entries are legal, NaN and +inf are not: they
            make the row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N], token ids.
        bins: bins of the histogram.
        workspace: reused buffers.

    Raises:
        IndexError: a target is below 0 or not below V.
    """
    compile_apart(kernels.measure_rows, COMPILE)
    return _measure_rows(logits, targets, bins, workspace)


def _measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> tuple[RowStatistics, torch.Tensor]:
    z = logits.float().contiguous()
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < z.shape[-1]:
        raise IndexError(f"a target is none of the {z.shape[-1]} entries of its row")
    scratch = workspace.empty("weight", z[: _threads()])
    found = np.empty((len(z), len(fields(RowStatistics))))
    spread = np.zeros((len(z), 3, bins.count))
    kernels.measure_rows(z.numpy(), targets.numpy(), bins.per_nat, scratch.numpy(), found, spread)
    columns = {field.name: torch.from_numpy(found[:, at].copy()) for at, field in enumerate(fields(RowStatistics))}
    columns |= {name: columns[name].long() for name in WHOLE}
    return RowStatistics(**columns), torch.from_numpy(spread).transpose(0, 1)


def ladder_sums(logits: torch.Tensor, tops: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return Σ exp((z − max z) / T) of each row z, for each temperature and its half, quarter, eighth and sixteenth.

    Args:
        logits: [N, V] in any float dtype, on the CPU; −inf entries are legal.
        tops: [N], the largest entry of each row.
        temperatures: the temperatures before halving; the largest is at most twice the smallest.

    Returns:
        float64 [N, number of temperatures, 5]; the last axis is T, T/2, T/4, T/8, T/16.
    """
    compile_apart(ladder_kernels.ladder_sums, COMPILE)
    return _ladder_sums(logits, tops, temperatures)


def compile_loops() -> None:
    """Compile the loops for the argument types of a scoring pass, so that their code is cached on disk."""
    row, target = torch.zeros((1, 64)), torch.zeros(1, dtype=torch.long)
    _measure_rows(row, target, HistogramBins(), Workspace())
    _ladder_sums(row, row[:, 0], [1.0])


def _ladder_sums(logits: torch.Tensor, tops: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    z = logits.float().contiguous()
    sums = np.zeros((len(z), len(temperatures), ladder_kernels.OCTAVES))
    _threads()
    factors = np.array([LOG2E / each for each in temperatures], np.float32)
    ladder_kernels.ladder_sums(z.numpy(), tops.float().contiguous().numpy(), factors, sums)
    return torch.from_numpy(sums)


def _threads() -> int:
    """Set numba's number of threads to that of torch, which `OMP_NUM_THREADS` sets, and return it."""
    return share_threads(torch.get_num_threads, torch.set_num_threads)
