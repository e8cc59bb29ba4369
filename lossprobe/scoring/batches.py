"""Batches of windows: which windows go through the model together, and what the model gets of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lossprobe.checkpoint.interface import BATCHINGS, EQUAL_LENGTHS, ONE_WINDOW, PADDED, Checkpoint
from lossprobe.plan.rows import REPLACED, SCORED, Integers, Rows, windows_of
from lossprobe.plan.windows import Window

BATCH_TOKENS = {"cpu": 1024, "cuda": 32_768, "mps": 8192}  # most padded tokens of a batch, by type of device


@dataclass(frozen=True)
class Batch:
    """Windows that go through the model together.

    Attributes:
        windows: each window, after the offset of its document's rows in the part; see `plan.rows.windows_of`.
    """

    windows: list[tuple[int, Window]]

    @property
    def width(self) -> int:
        """Return the number of input tokens of the longest window."""
        return max(window.stop - 1 - window.start for _, window in self.windows)


def token_budget(device: str) -> int:
    """Return the most padded tokens of a batch of several windows on a device."""
    return BATCH_TOKENS.get(device.partition(":")[0], 4096)


def batches_of(rows: Rows, batch_size: int | None, *checkpoints: Checkpoint) -> list[Batch]:
    """Return the windows of a part as batches by the strictest rule of the models; see `CheckpointFacts.batching`.

    Args:
        rows: the part.
        batch_size: most windows of a batch; None chooses by the device of the first model.
        checkpoints: the models that will run on the batches.
    """
    facts = [checkpoint.facts for checkpoint in checkpoints]
    batching = max((one.batching for one in facts), key=BATCHINGS.index)
    return make_batches(windows_of(rows), batch_size, token_budget(facts[0].device), batching)


def make_batches(
    windows: list[tuple[int, Window]], batch_size: int | None, budget: int, batching: str = PADDED
) -> list[Batch]:
    """Return the windows as batches, longest first, so that padding is small and running out of memory shows early.

    Args:
        windows: as of `plan.rows.windows_of`.
        batch_size: most windows of a batch; None for as many as the budget allows.
        budget: most padded tokens of a batch of several windows.
        batching: which windows may share a batch; see `CheckpointFacts.batching`.
    """
    order = sorted(windows, key=lambda item: item[1].start - item[1].stop)
    lengths = [window.stop - 1 - window.start for _, window in order]
    batches, position = [], 0
    while position < len(order):
        longest = max(1, lengths[position])
        count = 1 if batching == ONE_WINDOW else batch_size or max(1, budget // longest)
        if batching == EQUAL_LENGTHS:
            count = lengths[position : position + count].count(longest)
        batches.append(Batch(order[position : position + count]))
        position += count
    return batches


def batch_inputs(rows: Rows, batch: Batch, bos_id: int | None) -> tuple[Integers, Integers, Integers]:
    """Return the inputs of the model for a batch, and where the model predicts the scored tokens.

    Args:
        rows: the part.
        batch: windows of the part.
        bos_id: id of the BOS that replaces tokens marked `REPLACED`.

    Returns:
        ids: int64 [B, T], padded with 0 on the right.
        place: int64 [N], index into the flattened B · T positions at which each scored token is predicted.
        target: int64 [N], index of each scored token's row in the part.
    """
    ids = np.zeros((len(batch.windows), batch.width), np.int64)
    places, targets = [], []
    for row, (offset, window) in enumerate(batch.windows):
        seen = slice(offset + window.start, offset + window.stop - 1)
        inputs = np.where(rows.unscored[seen] == REPLACED, bos_id or 0, rows.token_id[seen])
        ids[row, : len(inputs)] = inputs
        scored = np.arange(offset + window.first_scored, offset + window.stop)
        scored = scored[rows.unscored[scored] == SCORED]
        places.append(row * batch.width + scored - offset - window.start - 1)
        targets.append(scored)
    return ids, np.concatenate(places), np.concatenate(targets)
