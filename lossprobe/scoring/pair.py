"""Compares two models on one part of a plan: both run on the same batches, and each token gets their divergence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.errors import CheckpointError, ResourceError
from lossprobe.plan.rows import SCORED, Integers, Rows
from lossprobe.scoring.batches import batch_inputs, batches_of
from lossprobe.scoring.divergence import DivergenceRows, divergence_rows, empty_rows
from lossprobe.scoring.head import chunk_rows
from lossprobe.scoring.measure import PassOptions, is_out_of_memory, not_finite_hint
from lossprobe.scoring.statistics import Workspace
from lossprobe.scoring.together import hidden_rows_of
from lossprobe.scoring.transfer import upload
from lossprobe.units import plural, visible

Pair = tuple[Checkpoint, Checkpoint]


@dataclass(frozen=True)
class PartDivergence:
    """How two models differ on the scored tokens of a part; every field is [n] in text order, on the CPU.

    Attributes:
        document, token, token_id: int64; number of the document, index of the token in it, and its id.
        kl_nats, same_top, target_prob_change, first_loss_nats, second_loss_nats: see `DivergenceRows`.
    """

    document: Integers
    token: Integers
    token_id: Integers
    kl_nats: npt.NDArray[np.float64]
    same_top: npt.NDArray[np.bool_]
    target_prob_change: npt.NDArray[np.float64]
    first_loss_nats: npt.NDArray[np.float64]
    second_loss_nats: npt.NDArray[np.float64]


def compare_part(pair: Pair, rows: Rows, options: PassOptions) -> PartDivergence:
    """Return how two models differ on a part's own scored tokens.

    Args:
        pair: the models, whose ids must mean the same. Where one has more of them, both distributions are those over
            the ids that both have, each of sum 1.
        rows: the part.
        options: batch size, progress callback and buffers.

    Raises:
        CheckpointError: a loss is NaN or infinite; the message names model and token.
        ResourceError: a batch does not fit into memory beside the two models.
    """
    batches = batches_of(rows, options.batch_size, *pair)
    scored = np.flatnonzero(rows.own & (rows.unscored == SCORED))
    result = empty_rows(len(scored), "cpu")
    try:
        inputs = [batch_inputs(rows, batch, pair[0].tokenizer.bos_id) for batch in batches]
        places = [(ids, place) for ids, place, _ in inputs]
        every = zip(*(hidden_rows_of(checkpoint, places) for checkpoint in pair), strict=True)
        for (_, _, target), hidden in zip(inputs, every, strict=True):
            found = _compare_batch(pair, rows, target, hidden, options.workspace)
            result.put(torch.from_numpy(np.searchsorted(scored, target)), found)  # batches come longest first
            options.advance(len(target))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        width = max(len(batch.windows) for batch in batches)
        raise ResourceError(
            "scoring.memory",
            f"out of memory with two models and {plural(width, 'window')} of up to {batches[0].width} tokens a batch",
            hint="lower `batch_size` or `context`",
        ) from None
    columns: dict[str, npt.NDArray[Any]] = {field.name: getattr(result, field.name).numpy() for field in fields(result)}
    return PartDivergence(rows.document[scored], rows.token[scored], rows.token_id[scored], **columns)


@torch.inference_mode()
def _compare_batch(
    pair: Pair, rows: Rows, target: Integers, hidden: tuple[torch.Tensor, ...], workspace: Workspace
) -> DivergenceRows:
    """Return how the two models differ on the rows that a batch scores.

    Args:
        pair: the models.
        rows: the part.
        target: the indices of the rows, int64 [n].
        hidden: the hidden rows of each model that predict them.
        workspace: reused buffers.
    """
    devices = {checkpoint.facts.device for checkpoint in pair}
    device = devices.pop() if len(devices) == 1 else "cpu"
    device = "cpu" if device.startswith("mps") else device  # mps has no float64
    targets = upload(torch.from_numpy(rows.token_id[target]), device)
    widths = [checkpoint.facts.vocab_size for checkpoint in pair]
    size, shared = chunk_rows(max(widths)), min(widths)
    result = empty_rows(len(target), device)
    for start in range(0, len(target), size):
        chunk = slice(start, start + size)
        logits = [model.logits(one[chunk])[:, :shared].to(device) for model, one in zip(pair, hidden, strict=True)]
        result.put(chunk, divergence_rows(logits[0], logits[1], targets[chunk], workspace))
    for checkpoint, losses in zip(pair, (result.first_loss_nats, result.second_loss_nats), strict=True):
        _refuse_not_finite(checkpoint, rows, target, losses.cpu())
    return result


def _refuse_not_finite(checkpoint: Checkpoint, rows: Rows, target: Integers, losses: torch.Tensor) -> None:
    wrong = np.flatnonzero(~np.isfinite(losses.numpy()))
    if len(wrong):
        at = target[wrong[0]]
        raise CheckpointError(
            "scoring.non_finite_loss",
            f"{visible(checkpoint.facts.name, 80)}: document {rows.document[at]}, token {rows.token[at]} "
            f"(id {rows.token_id[at]}): the loss is {float(losses[wrong[0]])}",
            hint=not_finite_hint(checkpoint.facts.compute_dtype),
        )
