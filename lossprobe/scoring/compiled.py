"""Logit rows on a CPU, through loops compiled for it: the same numbers as `statistics` and `histogram`, sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import numpy as np
import torch

from lossprobe.scoring import kernels
from lossprobe.scoring.compiler import Event, Listener, compile_apart, install_listener, numba
from lossprobe.scoring.histogram import HistogramBins
from lossprobe.scoring.statistics import RowStatistics, Workspace

COMPILE = "from lossprobe.scoring.compiled import compile_loops; compile_loops()"
WHOLE = ("rank", "ties", "top_id", "masked")


class _Compiling(Listener):
    """Calls a function when the first loop starts to be compiled; what was kept on disk is loaded without a word."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: Event) -> None:  # noqa: ARG002 - the name is numba's
        """Tell, the first time."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def on_end(self, event: Event) -> None:
        """Say nothing."""


@contextmanager
def tell_of_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once if loops have to be compiled before the block ends: some seconds in which nothing is scored.

    They are kept on disk, so on most machines this is so for the first pass only; see `compiler`.
    """
    with install_listener("numba:compile", _Compiling(tell)):
        yield


def measure_rows(
    logits: torch.Tensor, targets: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> tuple[RowStatistics, torch.Tensor]:
    """Return what `row_statistics` and `probability_histogram` return.

    Args:
        logits: [N, V] in any float dtype, on the CPU; read, never written. −inf entries are legal, NaN and +inf are
            not: they make the row's loss NaN or infinite, which the caller must refuse.
        targets: int64 [N].
        bins: the bins.
        workspace: buffers.

    Raises:
        IndexError: a target is no entry of its row.
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


def ladder_sums(logits: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    """Return Σ exp((z − max z) / T) of each row for each temperature, its half, quarter, eighth and sixteenth.

    Args:
        logits: [N, V] in any float dtype, on the CPU; −inf entries are legal.
        temperatures: the temperatures.

    Returns:
        float64 [N, number of temperatures, 5].
    """
    compile_apart(kernels.ladder_sums, COMPILE)
    return _ladder_sums(logits, temperatures)


def compile_loops() -> None:
    """Compile the loops for what they are given in a pass, so that their code is on disk."""
    row, target = torch.zeros((1, 64)), torch.zeros(1, dtype=torch.long)
    _measure_rows(row, target, HistogramBins(), Workspace())
    _ladder_sums(row, [1.0])


def _ladder_sums(logits: torch.Tensor, temperatures: list[float]) -> torch.Tensor:
    z = logits.float().contiguous()
    sums = np.zeros((len(z), len(temperatures), kernels.OCTAVES))
    _threads()
    kernels.ladder_sums(z.numpy(), np.array([1.0 / each for each in temperatures], np.float32), sums)
    return torch.from_numpy(sums)


def _threads() -> int:
    """Let the loops use as many threads as torch, whose number `OMP_NUM_THREADS` sets, and return how many."""
    wanted = torch.get_num_threads()
    threads: int = min(wanted, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    numba.set_num_threads(threads)
    if torch.get_num_threads() != wanted:  # to start its threads, numba sets OpenMP's number, which is torch's too
        torch.set_num_threads(wanted)
    return threads
