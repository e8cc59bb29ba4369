"""Statistics, histograms and ladders of logit rows on a CPU, by compiled loops: the fast version of `statistics`.

The loops themselves are in `row_loops`, what compiles and caches them in `compiler`.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.compiler import compile_apart, share_threads
from lossprobe.scoring import row_loops
from lossprobe.scoring.histogram import HistogramBins
from lossprobe.scoring.ladder import hottest_temperatures, log_sums
from lossprobe.scoring.ladder_kernels import OCTAVES
from lossprobe.scoring.statistics import MeasuredRows, RowStatistics, Workspace

COMPILE = "from lossprobe.scoring.compiled import compile_loops; compile_loops()"
COMPILE_COUNTED = "from lossprobe.scoring.compiled import compile_counted; compile_counted()"
LOG2E = 1.0 / math.log(2.0)
WHOLE = ("rank", "ties", "top_id", "masked")
COUNTED = (torch.bfloat16, torch.float16)
# Fewer logits in a row are measured one by one, since a row takes about 15 µs however few they are.
LEAST_COUNTED = 12_000


def measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, sampled: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> MeasuredRows:
    """Return the statistics and the histogram of each row, and the ladder of the sampled ones.

    They are those of `statistics.row_statistics`, `histogram.probability_histogram` and `ladder.temperature_ladder`, up
    to rounding.

    Args:
        logits: [N, V] in any float dtype, on the CPU; not modified. −inf entries are legal, NaN and +inf are not: they
            make the row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N], token ids.
        sampled: bool [N].
        bins: bins of the histogram.
        workspace: reused buffers.

    Raises:
        IndexError: a target is below 0 or not below V.
    """
    if is_counted(logits):
        compile_apart(row_loops.measure_counted_rows, COMPILE_COUNTED)
    else:
        compile_apart(row_loops.measure_rows, COMPILE)
    return _measure_rows(logits, targets, sampled, bins, workspace)


def is_counted(logits: torch.Tensor) -> bool:
    """Return whether equal logits of a row are measured once: where they have 16 bits and a row is long enough."""
    return logits.dtype in COUNTED and logits.shape[-1] >= LEAST_COUNTED


def compile_loops() -> None:
    """Compile the loop for float32 for the argument types of a scoring pass, so that its code is cached on disk."""
    _compile(torch.zeros((1, 64)))


def compile_counted() -> None:
    """Do what `compile_loops` does for the loop for 16 bits."""
    _compile(torch.zeros((1, LEAST_COUNTED), dtype=torch.bfloat16))


def _compile(row: torch.Tensor) -> None:
    target, sampled = torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.bool)
    _measure_rows(row, target, sampled, HistogramBins(), Workspace())


def _measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, sampled: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> MeasuredRows:
    count, width = logits.shape
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < width:
        raise IndexError(f"a target is none of the {width} entries of its row")
    threads = share_threads(torch.get_num_threads, torch.set_num_threads)
    ladders, temperatures = int(sampled.sum()), hottest_temperatures()
    found, spread = np.empty((count, len(fields(RowStatistics)))), np.zeros((count, 3, bins.count))
    tops, sums = np.empty(count, np.float32), np.zeros((ladders, len(temperatures), OCTAVES))
    place = torch.where(sampled, sampled.cumsum(dim=0) - 1, -1)
    picks = torch.stack([targets, place], dim=1).numpy()
    scales = (float(bins.per_nat), np.array([LOG2E / each for each in temperatures], np.float32))
    out = (found, spread, tops, sums)
    if is_counted(logits):
        codes = logits.contiguous().view(torch.uint16).numpy()
        row_loops.measure_counted_rows(codes, _numbers(logits.dtype), picks, scales, threads, out)
    else:
        z = _as_float32(logits, workspace).contiguous()
        scratch = workspace.empty("weight", z[:threads])
        row_loops.measure_rows(z.numpy(), picks, scales, scratch.numpy(), out)
    columns = {field.name: torch.from_numpy(found[:, at].copy()) for at, field in enumerate(fields(RowStatistics))}
    columns |= {name: columns[name].long() for name in WHOLE}
    ladder = log_sums(torch.from_numpy(tops)[sampled], torch.from_numpy(sums))
    return MeasuredRows(RowStatistics(**columns), torch.from_numpy(spread).transpose(0, 1), ladder)


def _as_float32(logits: torch.Tensor, workspace: Workspace) -> torch.Tensor:
    return logits if logits.dtype == torch.float32 else workspace.empty("logits", logits).copy_(logits)


@cache
def _numbers(dtype: torch.dtype) -> tuple[npt.NDArray[np.float32], Any]:
    """Return float32 [2¹⁶], the number of each code of a dtype of 16 bits, and uint16, the code of infinity."""
    codes = np.arange(1 << 16, dtype=np.uint16)
    infinity = torch.tensor(torch.inf, dtype=dtype).view(torch.uint16).item()
    return torch.from_numpy(codes).view(dtype).float().numpy(), np.uint16(infinity)
