"""Scores one part of a plan: makes batches of its windows, runs the model on them, and measures each scored token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from lossprobe.checkpoint.interface import Checkpoint, SharedPrefix
from lossprobe.checkpoint.layer_by_layer import streamed_of
from lossprobe.errors import ResourceError
from lossprobe.plan.part_scores import PartScores
from lossprobe.plan.rows import Integers, Rows, unscored_windows_of, windows_of
from lossprobe.scoring.batches import Batch, batch_inputs, make_batches, token_budget
from lossprobe.scoring.collector import Collector, NonFiniteLossError
from lossprobe.scoring.measure import PassOptions, hidden_rows, is_out_of_memory, measure, named_error, picked_rows
from lossprobe.scoring.routing import Routers, has_routers
from lossprobe.scoring.shared import SharedBatch, share_starts
from lossprobe.scoring.together import score_together
from lossprobe.scoring.transfer import mark, upload, wait_for
from lossprobe.units import plural

# The sides of a few pairs differ more in length than all windows of a part. In batches of a quarter of the size, 2 % of
# what goes through the model is padding, instead of 10 to 20 %.
SIDES_SHARE = 4


def score_part(checkpoint: Checkpoint, rows: Rows, first_row: int, options: PassOptions) -> PartScores:
    """Return the statistics of a part's own rows.

    Without `options.batch_size`, batches are halved until they fit into memory.

    Args:
        checkpoint: the model.
        rows: the part.
        first_row: index of the part's first own row in the run; it decides which rows keep their ladder.
        options: batch size, ladder sample, progress callback and buffers.

    Raises:
        CheckpointError: a loss is NaN or infinite; the message names the token.
        ResourceError: a batch of the given size, or a single window, does not fit into memory.
    """
    return queue_part(checkpoint, rows, first_row, options)()


def queue_part(checkpoint: Checkpoint, rows: Rows, first_row: int, options: PassOptions) -> Callable[[], PartScores]:
    """Return a function that returns what `score_part` does.

    On a GPU the work is only queued: the function waits for it, and the next part can be queued before. Other devices
    have done it.

    Raises:
        CheckpointError, ResourceError: as `score_part`, from here or from the function.
    """
    if streamed_of(checkpoint) is not None:
        scores = next(score_together(checkpoint, [(rows, first_row)], options))
        return lambda: scores
    batch_size = options.batch_size
    while True:
        batches = _all_batches(rows, batch_size, checkpoint, options.shared)
        collector = Collector(rows)
        routers = Routers(checkpoint, rows) if has_routers(checkpoint) else None
        done = 0
        try:
            for batch in batches:
                scored = _score_batch(checkpoint, batch, collector, first_row, options, routers)
                options.advance(scored)
                done += scored
            if routers is not None:
                for batch in make_batches(unscored_windows_of(rows), 1, 0):
                    routers.hidden(batch_inputs(rows, batch, checkpoint.tokenizer.bos_id)[0], batch.windows)
            return partial(_finish, checkpoint, collector, routers, mark(checkpoint.facts.device))
        except NonFiniteLossError as error:
            raise named_error(error, checkpoint, rows) from None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            options.advance(-done)
            width = max(len(batch.windows) for batch in batches)
            if options.batch_size is not None or width == 1 or options.share[1] > 1:  # others would not halve it
                raise ResourceError(
                    "scoring.memory",
                    f"out of memory with {plural(width, 'window')} of up to {batches[0].width} tokens a batch",
                    hint="lower `batch_size` or `context`",
                ) from None
            batch_size = width // 2


def _finish(
    checkpoint: Checkpoint, collector: Collector, routers: Routers | None, queued: torch.cuda.Event | None
) -> PartScores:
    """Wait for the work of a part, and return its scores."""
    wait_for(queued)
    try:
        scores = collector.finish()
    except NonFiniteLossError as error:
        raise named_error(error, checkpoint, collector.rows) from None
    return scores if routers is None else replace(scores, routing=routers.finish())


def _all_batches(
    rows: Rows, batch_size: int | None, checkpoint: Checkpoint, shared: SharedPrefix | None
) -> list[Batch | SharedBatch]:
    """Return the windows of a part as batches, those of pairs that start alike first."""
    facts, windows = checkpoint.facts, windows_of(rows)
    pairs: list[SharedBatch] = []
    if shared is not None and batch_size != 1:
        pairs, windows = share_starts(rows, windows, batch_size, token_budget(facts.device))
    return [*pairs, *make_batches(windows, batch_size, token_budget(facts.device), facts.batching)]


def _score_batch(
    checkpoint: Checkpoint,
    batch: Batch | SharedBatch,
    collector: Collector,
    first_row: int,
    options: PassOptions,
    routers: Routers | None,
) -> int:
    """Run the model on one batch, give its statistics to the collector, and return how many tokens it scored."""
    if isinstance(batch, SharedBatch):
        passes = _passes_after_start(checkpoint, batch, collector.rows, options)
    else:
        ids, place, target = batch_inputs(collector.rows, batch, checkpoint.tokenizer.bos_id)
        if routers is None:
            hidden = hidden_rows(checkpoint, ids, place)
        else:
            hidden = picked_rows(routers.hidden(ids, batch.windows), place)
        passes = iter([(hidden, target)])
    return sum(measure(checkpoint, hidden, target, collector, first_row, options) for hidden, target in passes)


def _passes_after_start(
    checkpoint: Checkpoint, batch: SharedBatch, rows: Rows, options: PassOptions
) -> Iterator[tuple[torch.Tensor, Integers]]:
    """Run the starts of pairs, then yield for each pass over what follows the hidden rows and targets."""
    assert options.shared is not None
    device = checkpoint.facts.device
    starts = np.stack([rows.token_id[offset : offset + batch.shared] for offset in batch.starts])
    prefix = options.shared.run(upload(torch.from_numpy(starts), device))
    for each in make_batches(batch.windows, batch.batch_size, token_budget(device) // SIDES_SHARE):
        ids, place, target = batch_inputs(rows, each, None)
        start = upload(torch.tensor([batch.start_of[offset] for offset, _ in each.windows]), device)
        hidden = options.shared.hidden_after(prefix, start, upload(torch.from_numpy(ids), device))
        yield picked_rows(hidden, place), target
