"""Turns hidden rows into statistics of the predicted distributions, a chunk of logits at a time.

The logits of a whole batch, [B, T, V], are never in memory; those of one chunk stay in the CPU's cache. On a GPU
nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.plan.part_scores import LADDER_TEMPERATURES
from lossprobe.scoring import compiled
from lossprobe.scoring.accelerated import fused_module
from lossprobe.scoring.histogram import HistogramBins, probability_histogram
from lossprobe.scoring.ladder import temperature_ladder
from lossprobe.scoring.statistics import MeasuredRows, Workspace, row_statistics
from lossprobe.scoring.transfer import download, upload

# Logits per chunk, 32 MiB of float32: about the size of an L3 cache. With half of them the head took 3 to 6 % longer.
CHUNK_ELEMENTS = 1 << 23
# On a GPU a chunk must be so large that the matrix product and the kernels fill the device: 512 MiB of bfloat16. The
# torch functions make copies of it, of 32 bytes an entry in all.
FUSED_ELEMENTS, DEVICE_ELEMENTS = 1 << 28, 1 << 24
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
    """Measurements of N rows, on the CPU; those of a GPU may be read after `transfer.wait_for` a later mark.

    Attributes:
        device: the device that computes them.
        columns: name of a field of `RowStatistics` → its values, float64 or int64 [N].
        histogram: [3, group_count, bins], summed over the rows of each group: float64 as of `probability_histogram`, or
            int64 as of `HistogramBins.from_whole`.
        ladder: float64 [number of sampled rows, 17]; see `temperature_ladder`.
    """

    device: torch.device
    columns: dict[str, torch.Tensor]
    histogram: torch.Tensor
    ladder: torch.Tensor


def chunk_rows(vocab_size: int, elements: int = CHUNK_ELEMENTS) -> int:
    """Return the number of logit rows in a chunk: a multiple of `ROW_STEP`, at most `MAX_CHUNK_ROWS`.

    Args:
        vocab_size: entries of a row.
        elements: about how many entries a chunk should have.

    >>> chunk_rows(512), chunk_rows(50257), chunk_rows(256000)
    (4096, 128, 64)
    """
    steps = elements // vocab_size // ROW_STEP
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
        size: logit rows in a chunk; None for as many as suit the vocabulary and the device.
    """
    vocab_size, device = checkpoint.facts.vocab_size, rows.targets.device
    size = size or chunk_rows(vocab_size, _elements(device, rows.hidden.dtype, vocab_size))
    kept = _Kept(rows, bins.count)
    for start in range(0, len(rows.targets), size):
        chunk = slice(start, min(start + size, len(rows.targets)))
        logits = checkpoint.logits(rows.hidden[chunk]).to(device)
        kept.add(chunk, measure_chunk(logits, rows.targets[chunk], rows.sampled[chunk], bins, workspace))
    return kept.result()


def measure_chunk(
    logits: torch.Tensor, targets: torch.Tensor, sampled: torch.Tensor, bins: HistogramBins, workspace: Workspace
) -> MeasuredRows:
    """Return what is measured of each row, and the ladder of the sampled ones, by the fastest way on its device."""
    device = logits.device
    if device.type == "cpu":
        return compiled.measure_rows(logits, targets, sampled, bins, workspace)
    fused = fused_module(device, logits.dtype, logits.shape[-1])
    if fused is None:
        statistics, centred = row_statistics(logits, targets, workspace)
        histogram = probability_histogram(centred, targets, bins)
    else:
        statistics, histogram = fused.measure_rows(logits, targets, bins)
    picked = torch.nonzero(sampled).flatten()
    if not len(picked):
        nothing = torch.empty((0, len(LADDER_TEMPERATURES)), dtype=torch.float64, device=device)
        return MeasuredRows(statistics, histogram, nothing)
    some = logits if len(picked) == len(logits) else logits[upload(picked, device)]
    return MeasuredRows(statistics, histogram, temperature_ladder(some))


def _elements(device: torch.device, dtype: torch.dtype, vocab_size: int) -> int:
    """Return about how many logits of hidden rows of a dtype should be in memory at once."""
    if device.type == "cpu":
        return CHUNK_ELEMENTS
    return DEVICE_ELEMENTS if fused_module(device, dtype, vocab_size) is None else FUSED_ELEMENTS


class _Kept:
    """Collects the measurements of all chunks, on the device that computes the statistics."""

    def __init__(self, rows: HeadRows, bins: int) -> None:
        self._rows = rows
        self._columns: dict[str, torch.Tensor] = {}
        self._ladders: list[torch.Tensor] = []
        self._shape = (3, rows.group_count, bins)
        self._histogram: torch.Tensor | None = None

    def add(self, chunk: slice, measured: MeasuredRows) -> None:
        """Add what was measured of the rows of a chunk."""
        rows, count = self._rows, len(self._rows.targets)
        for field in fields(measured.statistics):
            values = getattr(measured.statistics, field.name)
            self._columns.setdefault(field.name, values.new_empty(count))[chunk] = values
        if self._histogram is None:
            self._histogram = measured.histogram.new_zeros(self._shape)
        self._histogram.index_add_(1, rows.groups[chunk], measured.histogram)
        if len(measured.ladder):
            self._ladders.append(measured.ladder)

    def result(self) -> HeadResult:
        """Return all measurements, on their way to the CPU."""
        nothing = torch.zeros(self._shape, dtype=torch.float64)
        return HeadResult(
            device=self._rows.targets.device,
            columns={name: download(values) for name, values in self._columns.items()},
            histogram=nothing if self._histogram is None else download(self._histogram),
            ladder=download(torch.cat(self._ladders)) if self._ladders else torch.empty((0, 0), dtype=torch.float64),
        )
