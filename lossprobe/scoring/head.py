"""Turns hidden rows into statistics of the predicted distributions, a chunk of logits at a time.

The logits of a whole batch, [B, T, V], are never in memory; those of one chunk stay in the CPU's cache.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.scoring import compiled
from lossprobe.scoring.histogram import HistogramBins, probability_histogram
from lossprobe.scoring.ladder import temperature_ladder
from lossprobe.scoring.statistics import RowStatistics, Workspace, row_statistics

CHUNK_ELEMENTS = 1 << 22  # logits per chunk, 16 MiB of float32: about the size of an L3 cache
ROW_STEP = 64  # with fewer rows the matrix product waits for its weights; packed layers work on this many rows at once
MAX_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class HeadRows:
    """Hidden rows of scored tokens, with what is needed to measure them.

    Attributes:
        hidden: [N, D] on the model's device.
        targets: int64 [N], token ids, on the device that computes the statistics.
        groups: int64 [N], on the same device; the document of each row, counted from 0 within the batch.
        group_count: number of documents in the batch.
        sampled: bool [N] on the CPU; True for rows whose temperature ladder is kept.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    groups: torch.Tensor
    group_count: int
    sampled: torch.Tensor


@dataclass(frozen=True)
class HeadResult:
    """Measurements of N rows, on the CPU.

    Attributes:
        columns: name of a field of `RowStatistics` → its values, float64 or int64 [N].
        histogram: float64 [3, group_count, bins], summed over the rows of each group; see `probability_histogram`.
        ladder: float64 [number of sampled rows, 17]; see `temperature_ladder`.
    """

    columns: dict[str, npt.NDArray[Any]]
    histogram: npt.NDArray[np.float64]
    ladder: npt.NDArray[np.float64]


class NonFiniteLossError(ValueError):
    """The loss of a row is NaN or infinite; the caller knows which token the row is and names it to the user.

    Attributes:
        row: index of the row in `HeadRows`.
        loss: its loss.
    """

    def __init__(self, row: int, loss: float) -> None:
        super().__init__(f"row {row}: the loss is {loss}")
        self.row = row
        self.loss = loss


def chunk_rows(vocab_size: int) -> int:
    """Return the number of logit rows in a chunk: a multiple of `ROW_STEP`, at most `MAX_CHUNK_ROWS`.

    >>> chunk_rows(512), chunk_rows(50257), chunk_rows(256000)
    (4096, 64, 64)
    """
    steps = CHUNK_ELEMENTS // vocab_size // ROW_STEP
    return min(MAX_CHUNK_ROWS, max(1, steps) * ROW_STEP)


@torch.inference_mode()
def run_head(
    checkpoint: Checkpoint, rows: HeadRows, bins: HistogramBins, workspace: Workspace, size: int | None = None
) -> HeadResult:
    """Return the statistics of every row, the histogram of each group, and the ladder of the sampled rows.

    Args:
        checkpoint: the model whose head computes the logits.
        rows: the hidden rows.
        bins: bins of the histogram.
        workspace: reused buffers.
        size: logit rows in a chunk; None for `chunk_rows` of the vocabulary.

    Raises:
        NonFiniteLossError: a row's loss is NaN or infinite.
    """
    size, device = size or chunk_rows(checkpoint.facts.vocab_size), rows.targets.device
    kept = _Kept(rows, bins.count)
    for start in range(0, len(rows.targets), size):
        chunk = slice(start, min(start + size, len(rows.targets)))
        logits = checkpoint.logits(rows.hidden[chunk]).to(device)
        kept.add(chunk, *measure_chunk(logits, rows.targets[chunk], bins, workspace))
        picked = torch.nonzero(rows.sampled[chunk]).flatten()
        if len(picked):
            sampled = logits if len(picked) == len(logits) else logits[picked.to(device)]
            kept.add_ladder(temperature_ladder(sampled))
    return kept.result()


def measure_chunk(
    logits: torch.Tensor, targets: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> tuple[RowStatistics, torch.Tensor]:
    """Return the statistics of each row, and float64 [3, N, bins] its histogram, by the fastest way on its device."""
    if logits.device.type == "cpu":
        return compiled.measure_rows(logits, targets, bins, workspace)
    statistics, centred = row_statistics(logits, targets, workspace)
    return statistics, probability_histogram(centred, targets, bins)


class _Kept:
    """Collects the measurements of all chunks, on the device that computes the statistics."""

    def __init__(self, rows: HeadRows, bins: int) -> None:
        self._rows = rows
        self._columns: dict[str, torch.Tensor] = {}
        self._ladders: list[torch.Tensor] = []
        shape = (3, rows.group_count, bins)
        self._histogram = torch.zeros(shape, dtype=torch.float64, device=rows.targets.device)

    def add(self, chunk: slice, statistics: RowStatistics, histogram: torch.Tensor) -> None:
        """Add the statistics and histograms of the rows of a chunk."""
        rows, count = self._rows, len(self._rows.targets)
        for field in fields(statistics):
            values = getattr(statistics, field.name)
            self._columns.setdefault(field.name, values.new_empty(count))[chunk] = values
        self._histogram.index_add_(1, rows.groups[chunk], histogram)

    def add_ladder(self, ladder: torch.Tensor) -> None:
        """Add the ladder of the next sampled rows."""
        self._ladders.append(ladder)

    def result(self) -> HeadResult:
        """Return all measurements, on the CPU.

        Raises:
            NonFiniteLossError: a row's loss is NaN or infinite.
        """
        ladder = torch.cat(self._ladders).cpu().numpy() if self._ladders else np.empty((0, 0))
        measured = {name: values.cpu().numpy() for name, values in self._columns.items()}
        wrong = np.flatnonzero(~np.isfinite(measured["loss_nats"]))
        if len(wrong):
            raise NonFiniteLossError(int(wrong[0]), float(measured["loss_nats"][wrong[0]]))
        return HeadResult(measured, self._histogram.cpu().numpy(), ladder)
