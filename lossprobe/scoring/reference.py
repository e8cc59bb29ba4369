"""Reference losses in plain float64 torch, against which `lossprobe selfcheck` compares the scoring pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.checkpoint.interface import Checkpoint, LeftPadding
from lossprobe.errors import ResourceError
from lossprobe.plan.rows import SCORED, Rows
from lossprobe.scoring.batches import Batch, batch_inputs, batches_of
from lossprobe.scoring.head import chunk_rows
from lossprobe.scoring.measure import hidden_rows, is_out_of_memory


@contextmanager
def other_threads() -> Iterator[tuple[int, int]]:
    """Change the number of threads of torch and of the compiled loops inside the block: to 1, or to 2 where it was 1.

    Yields:
        The number inside the block, and the number before it.
    """
    before = torch.get_num_threads()
    number = 1 if before > 1 else 2
    torch.set_num_threads(number)
    try:
        yield number, before
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def reference_losses(
    checkpoint: Checkpoint, rows: Rows, batch_size: int | None = None, *, left_padded: bool = False
) -> npt.NDArray[np.float64]:
    """Return the loss log Σ exp(z) − z_y of a part's own scored tokens, float64 [n] in text order.

    Args:
        checkpoint: the model; it must be a `LeftPadding` for `left_padded`.
        rows: the part.
        batch_size: most windows per forward pass; None chooses by device.
        left_padded: pad the shorter windows of a batch before their tokens, not after them.

    Raises:
        ResourceError: a batch does not fit into memory.
    """
    scored = np.flatnonzero(rows.own & (rows.unscored == SCORED))
    losses = np.empty(len(scored))
    run = _left_padded if left_padded else _padded
    try:
        for batch in batches_of(rows, batch_size, checkpoint):
            hidden, target = run(checkpoint, rows, batch)
            targets = torch.from_numpy(rows.token_id[target])
            losses[np.searchsorted(scored, target)] = _losses(checkpoint, hidden, targets)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError("scoring.memory", "out of memory", hint="lower `batch_size` or `context`") from None
    return losses


def _padded(checkpoint: Checkpoint, rows: Rows, batch: Batch) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    """Return the hidden rows [n, D] that predict a batch's scored tokens, and the indices of these tokens' rows."""
    ids, place, target = batch_inputs(rows, batch, checkpoint.tokenizer.bos_id)
    return hidden_rows(checkpoint, ids, place), target


def _left_padded(checkpoint: Checkpoint, rows: Rows, batch: Batch) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
    """Return the same as `_padded`, with the padding of each window before its tokens."""
    assert isinstance(checkpoint, LeftPadding)
    ids, place, target = batch_inputs(rows, batch, checkpoint.tokenizer.bos_id)
    padding = np.array([batch.width - (window.stop - 1 - window.start) for _, window in batch.windows])
    moved = np.stack([np.roll(row, shift) for row, shift in zip(ids, padding, strict=True)])
    device = checkpoint.facts.device
    hidden = checkpoint.hidden_left_padded(torch.from_numpy(moved).to(device), torch.from_numpy(padding).to(device))
    place = place + padding[place // batch.width]
    return hidden.flatten(0, 1)[torch.from_numpy(place).to(hidden.device)], target


def _losses(checkpoint: Checkpoint, hidden: torch.Tensor, targets: torch.Tensor) -> npt.NDArray[np.float64]:
    """Return the losses that hidden rows predict, float64 [n], computed a chunk of logits at a time."""
    size = chunk_rows(checkpoint.facts.vocab_size)
    found = []
    for start in range(0, len(targets), size):
        logits = checkpoint.logits(hidden[start : start + size]).cpu().double()
        own = logits.gather(1, targets[start : start + size, None])[:, 0]
        found.append(torch.logsumexp(logits, dim=-1) - own)
    return torch.cat(found).numpy()
