"""The head: hidden rows to statistics, in chunks that stay in the cache, so [B, T, V] never exists."""

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

CHUNK_ELEMENTS = 1 << 22  # logits made at once, 16 MiB of float32: about an L3 cache
ROW_STEP = 64  # fewer rows leave a matrix product waiting for its weights, and packed layers take them in such steps
MAX_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class HeadRows:
    """Rows for the head, all of them scored.

    Attributes:
        hidden: [N, D] on the model's device.
        targets: int64 [N], on the device that the statistics are computed on.
        groups: int64 [N] beside them, document of each row within its batch, from 0.
        group_count: number of documents in the batch.
        sampled: bool [N] on the CPU, rows whose temperature ladder is kept.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    groups: torch.Tensor
    group_count: int
    sampled: torch.Tensor


@dataclass(frozen=True)
class HeadResult:
    """What the head saw of N rows, on the CPU.

    Attributes:
        columns: name of each field of `RowStatistics` → float64 or int64 [N].
        histogram: float64 [3, group_count, bins], added up over the rows of a group; see `probability_histogram`.
        ladder: float64 [number of sampled rows, 17]; see `temperature_ladder`.
    """

    columns: dict[str, npt.NDArray[Any]]
    histogram: npt.NDArray[np.float64]
    ladder: npt.NDArray[np.float64]


class NonFiniteLossError(ValueError):
    """A row's loss is NaN or infinite; the caller knows which token that is.

    Attributes:
        row: index of the row among those handed to the head.
        loss: its loss.
    """

    def __init__(self, row: int, loss: float) -> None:
        super().__init__(f"row {row}: the loss is {loss}")
        self.row = row
        self.loss = loss


def chunk_rows(vocab_size: int) -> int:
    """Return how many logit rows are made at once, in whole steps of `ROW_STEP`.

    >>> chunk_rows(512), chunk_rows(50257), chunk_rows(256000)
    (4096, 64, 64)
    """
    steps = CHUNK_ELEMENTS // vocab_size // ROW_STEP
    return min(MAX_CHUNK_ROWS, max(1, steps) * ROW_STEP)


@torch.inference_mode()
def run_head(
    checkpoint: Checkpoint, rows: HeadRows, bins: HistogramBins, workspace: Workspace, size: int | None = None
) -> HeadResult:
    """Return the statistics of every row, the histogram per group, and the ladder of the sampled rows.

    Args:
        checkpoint: the model.
        rows: what goes through its head.
        bins: of the histogram.
        workspace: buffers.
        size: logit rows made at once; None for `chunk_rows`.

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
    """Return the statistics of each row, and float64 [3, N, bins] its histogram, by what is fastest on its device."""
    if logits.device.type == "cpu":
        return compiled.measure_rows(logits, targets, bins, workspace)
    statistics, centred = row_statistics(logits, targets, workspace)
    return statistics, probability_histogram(centred, targets, bins)


class _Kept:
    """What is kept of each chunk, on the device of the statistics until the end."""

    def __init__(self, rows: HeadRows, bins: int) -> None:
        self._rows = rows
        self._columns: dict[str, torch.Tensor] = {}
        self._ladders: list[torch.Tensor] = []
        shape = (3, rows.group_count, bins)
        self._histogram = torch.zeros(shape, dtype=torch.float64, device=rows.targets.device)

    def add(self, chunk: slice, statistics: RowStatistics, histogram: torch.Tensor) -> None:
        """Keep the statistics and the histograms of some rows."""
        rows, count = self._rows, len(self._rows.targets)
        for field in fields(statistics):
            values = getattr(statistics, field.name)
            self._columns.setdefault(field.name, values.new_empty(count))[chunk] = values
        self._histogram.index_add_(1, rows.groups[chunk], histogram)

    def add_ladder(self, ladder: torch.Tensor) -> None:
        """Keep the ladder of the next rows that have one."""
        self._ladders.append(ladder)

    def result(self) -> HeadResult:
        """Return everything that was kept, on the CPU.

        Raises:
            NonFiniteLossError: a row's loss is NaN or infinite.
        """
        ladder = torch.cat(self._ladders).cpu().numpy() if self._ladders else np.empty((0, 0))
        measured = {name: values.cpu().numpy() for name, values in self._columns.items()}
        wrong = np.flatnonzero(~np.isfinite(measured["loss_nats"]))
        if len(wrong):
            raise NonFiniteLossError(int(wrong[0]), float(measured["loss_nats"][wrong[0]]))
        return HeadResult(measured, self._histogram.cpu().numpy(), ladder)
