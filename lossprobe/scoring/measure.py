"""Measures the scored tokens of one batch: the head runs on the hidden rows that predict them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from lossprobe.checkpoint.interface import Checkpoint, SharedPrefix
from lossprobe.errors import CheckpointError
from lossprobe.plan.rows import Integers, Rows
from lossprobe.scoring.collector import BINS, Collector, NonFiniteLossError
from lossprobe.scoring.head import HeadRows, run_head
from lossprobe.scoring.statistics import Workspace
from lossprobe.scoring.transfer import upload


@dataclass(frozen=True)
class PassOptions:
    """How a part goes through the model.

    Attributes:
        batch_size: most windows per forward pass; None chooses by device, and halves when memory runs out.
        sample_every: keep the temperature ladder of every n-th row of the run.
        advance: called with the number of tokens that each batch scored; negative when a batch has to be repeated.
        stage: called with what a model whose layers are read one after the other is at, such as "layer 3 of 32".
        workspace: buffers of the head, reused from part to part.
        chunk_rows: logit rows in memory at once; None chooses by the size of the vocabulary.
        shared: runs pairs of documents after their common start; None for documents that are no pairs, and for models
            that cannot.
        share: the number of this process and how many there are that run the same batches, where each measures its own
            share of the rows alone.
    """

    batch_size: int | None = None
    sample_every: int = 1
    advance: Callable[[int], None] = lambda _: None
    stage: Callable[[str], None] = lambda _: None
    workspace: Workspace = field(default_factory=Workspace)
    chunk_rows: int | None = None
    shared: SharedPrefix | None = None
    share: tuple[int, int] = (0, 1)


def hidden_rows(checkpoint: Checkpoint, ids: Integers, place: Integers) -> torch.Tensor:
    """Return the hidden rows [N, D] at the places where scored tokens are predicted, and free all others."""
    return picked_rows(checkpoint.hidden(upload(torch.from_numpy(ids), checkpoint.facts.device)), place)


def picked_rows(hidden: torch.Tensor, place: Integers) -> torch.Tensor:
    """Return some rows [N, D] of hidden states [B, T, D], by their index into the flattened B · T positions."""
    return hidden.flatten(0, 1)[upload(torch.from_numpy(place), hidden.device)]


def measure(
    checkpoint: Checkpoint,
    hidden: torch.Tensor,
    target: Integers,
    collector: Collector,
    first_row: int,
    options: PassOptions,
) -> int:
    """Give the statistics of some hidden rows, those of this process's share, to the collector.

    Returns:
        How many rows there are, those of other processes too.
    """
    index, count = options.share
    every = len(target)
    own_share = slice(every * index // count, every * (index + 1) // count)
    hidden, target = hidden[own_share], target[own_share]
    if not len(target):
        return every
    rows = collector.rows
    device = checkpoint.facts.device
    statistics_device = "cpu" if device.startswith("mps") else device  # mps has no float64
    own = target - collector.lead
    documents, groups = np.unique(rows.document[target], return_inverse=True)
    sampled = (first_row + own) % options.sample_every == 0
    picked = HeadRows(
        hidden=hidden,
        targets=upload(torch.from_numpy(rows.token_id[target]), statistics_device),
        groups=upload(torch.from_numpy(groups), statistics_device),
        group_count=len(documents),
        sampled=torch.from_numpy(sampled),
    )
    result = run_head(checkpoint, picked, BINS, options.workspace, options.chunk_rows)
    collector.add(own, documents, own[sampled], result)
    return every


def named_error(error: NonFiniteLossError, checkpoint: Checkpoint, rows: Rows) -> CheckpointError:
    """Return the error that names the token of a loss that is NaN or infinite."""
    at = error.row
    return CheckpointError(
        "scoring.non_finite_loss",
        f"document {rows.document[at]}, token {rows.token[at]} (id {rows.token_id[at]}): the loss is {error.loss}",
        hint=not_finite_hint(checkpoint.facts.compute_dtype),
    )


def not_finite_hint(compute_dtype: str) -> str:
    """Return what a loss that is not finite may come from: in half precision numbers that are too large for it."""
    why = "a wider `dtype` may help" if "16" in compute_dtype else "the weights hold such values, or make them"
    return f"the logits hold NaN or infinity; {why}"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch ran out of memory: on a GPU the error's type says so, on the CPU only its message."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
