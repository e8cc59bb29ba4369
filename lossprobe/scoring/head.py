"""The head: hidden rows to statistics, in chunks that stay in the cache, so [B, T, V] never exists."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.scoring.statistics import (
    HistogramBins,
    Workspace,
    probability_histogram,
    row_statistics,
    temperature_ladder,
)

CHUNK_ELEMENTS = 1 << 22  # 16 MiB of float32: about an L3 cache, and at least 16 rows of any vocabulary
MIN_CHUNK_ROWS = 16
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
        histogram: float64 [3, group_count, bins]; see `probability_histogram`.
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
    """Return how many logit rows are worked on at once.

    >>> chunk_rows(512), chunk_rows(50257), chunk_rows(256000)
    (4096, 83, 16)
    """
    return min(MAX_CHUNK_ROWS, max(MIN_CHUNK_ROWS, CHUNK_ELEMENTS // vocab_size))


@torch.inference_mode()
def run_head(checkpoint: Checkpoint, rows: HeadRows, bins: HistogramBins, workspace: Workspace) -> HeadResult:
    """Return the statistics of every row, the histogram per group, and the ladder of the sampled rows.

    Raises:
        NonFiniteLossError: a row's loss is NaN or infinite.
    """
    size = chunk_rows(checkpoint.facts.vocab_size)
    device = rows.targets.device
    count = len(rows.targets)
    columns: dict[str, torch.Tensor] = {}
    ladders: list[torch.Tensor] = []
    histogram = torch.zeros((3, rows.group_count, bins.count), dtype=torch.float64, device=device)
    for start in range(0, count, size):
        chunk = slice(start, start + size)
        logits = checkpoint.logits(rows.hidden[chunk]).to(device)
        statistics, centred = row_statistics(logits, rows.targets[chunk], workspace)
        wrong = torch.nonzero(~torch.isfinite(statistics.loss_nats)).flatten()
        if len(wrong):
            first = int(wrong[0])
            raise NonFiniteLossError(start + first, float(statistics.loss_nats[first]))
        for field in fields(statistics):
            values = getattr(statistics, field.name)
            columns.setdefault(field.name, values.new_empty(count))[chunk] = values
        histogram += probability_histogram(centred, rows.targets[chunk], rows.groups[chunk], rows.group_count, bins)
        picked = torch.nonzero(rows.sampled[chunk]).flatten().to(device)
        if len(picked):
            top = statistics.log_z[picked] - centred.log_sum[picked]
            ladders.append(temperature_ladder(centred.take(picked), top).cpu())
    ladder = torch.cat(ladders).numpy() if ladders else np.empty((0, 0))
    measured = {name: values.cpu().numpy() for name, values in columns.items()}
    return HeadResult(measured, histogram.cpu().numpy(), ladder)
