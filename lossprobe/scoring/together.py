"""Scores several parts together with a model whose layers are read one after the other: each layer once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.layer_by_layer import LayerByLayer, streamed_of
from lossprobe.errors import ResourceError
from lossprobe.plan.part_scores import PartScores
from lossprobe.plan.rows import Integers, Rows, windows_of
from lossprobe.scoring.batches import Batch, batch_inputs, make_batches, token_budget
from lossprobe.scoring.collector import Collector, NonFiniteLossError
from lossprobe.scoring.measure import PassOptions, hidden_rows, is_out_of_memory, measure, named_error, picked_rows
from lossprobe.scoring.transfer import mark, upload, wait_for
from lossprobe.units import plural

Placed = tuple[Rows, int]  # a part, and the number of its first own row in the run


@dataclass(frozen=True)
class _Input:
    part: int
    batch: Batch
    ids: Integers
    place: Integers
    target: Integers


def input_tokens(rows: Rows) -> int:
    """Return how many tokens go through the model for a part, padding left out."""
    return sum(window.stop - 1 - window.start for _, window in windows_of(rows))


def score_together(checkpoint: Checkpoint, parts: Sequence[Placed], options: PassOptions) -> Iterator[PartScores]:
    """Yield the statistics of each part's own rows, in order, after all went through each layer together.

    Without `options.batch_size`, batches are halved until they fit into memory.

    Args:
        checkpoint: the model, one that `streamed_of` knows.
        parts: the parts.
        options: as for `scorer.score_part`.

    Raises:
        CheckpointError, ResourceError: as for `scorer.score_part`.
    """
    streamed, batch_size = streamed_of(checkpoint), options.batch_size
    assert streamed is not None
    options = replace(options, chunk_rows=options.chunk_rows or streamed.head_rows)
    while True:
        inputs = [each for part, (rows, _) in enumerate(parts) for each in _inputs(checkpoint, part, rows, batch_size)]
        credit = _Credit(inputs, streamed, options)
        try:
            yield from _score_inputs(checkpoint, streamed, parts, inputs, options, credit)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            credit.take_back()
            widest = max(inputs, key=lambda each: len(each.batch.windows)).batch
            width = len(widest.windows)
            if options.batch_size is not None or width == 1 or credit.finished:
                raise ResourceError(
                    "scoring.memory",
                    f"out of memory with {plural(width, 'window')} of up to {widest.width} tokens a batch",
                    hint="lower `batch_size` or `context`",
                ) from None
            batch_size = width // 2
        else:
            return


def hidden_rows_of(checkpoint: Checkpoint, inputs: Sequence[tuple[Integers, Integers]]) -> Iterator[torch.Tensor]:
    """Yield the hidden rows [N, D] at the places of several batches, in order.

    Args:
        checkpoint: the model; each of its layers is read once for all batches where they are read one after the other.
        inputs: ids [B, T] and places [N] of each batch, as of `batch_inputs`.
    """
    streamed = streamed_of(checkpoint)
    if streamed is None:
        for ids, place in inputs:
            yield hidden_rows(checkpoint, ids, place)
        return
    device = checkpoint.facts.device
    every = streamed.hidden_of_all([upload(torch.from_numpy(ids), device) for ids, _ in inputs])
    for hidden, (_, place) in zip(every, inputs, strict=True):
        yield picked_rows(hidden, place)


def _inputs(checkpoint: Checkpoint, part: int, rows: Rows, batch_size: int | None) -> Iterator[_Input]:
    """Yield the batches of a part, with what the model gets of them."""
    facts = checkpoint.facts
    for batch in make_batches(windows_of(rows), batch_size, token_budget(facts.device), facts.batching):
        yield _Input(part, batch, *batch_inputs(rows, batch, checkpoint.tokenizer.bos_id))


def _score_inputs(
    checkpoint: Checkpoint,
    streamed: LayerByLayer,
    parts: Sequence[Placed],
    inputs: Sequence[_Input],
    options: PassOptions,
    credit: _Credit,
) -> Iterator[PartScores]:
    """Yield the statistics of each part."""
    device = checkpoint.facts.device
    ids = [upload(torch.from_numpy(each.ids), device) for each in inputs]
    every = enumerate(streamed.hidden_of_all(ids, credit.layer_done))
    for part, (rows, first_row) in enumerate(parts):
        collector = Collector(rows)
        try:
            for number, each in enumerate(inputs):
                if each.part == part:
                    index, hidden = next(every)
                    assert index == number
                    measure(checkpoint, picked_rows(hidden, each.place), each.target, collector, first_row, options)
                    credit.layer_done(streamed.layer_count + 1, number)
            wait_for(mark(device))
            scores = collector.finish()
        except NonFiniteLossError as error:
            raise named_error(error, checkpoint, rows) from None
        yield scores
        credit.finished += 1


class _Credit:
    """Tells of progress: a token counts by the share of layers, the head as one more, that it has gone through.

    Attributes:
        finished: number of parts that are scored.
    """

    def __init__(self, inputs: Sequence[_Input], streamed: LayerByLayer, options: PassOptions) -> None:
        self.finished = 0
        self._sizes = [each.ids.size for each in inputs]
        self._scored = sum(len(each.target) for each in inputs)
        self._steps = (streamed.layer_count + 1) * sum(self._sizes)
        self._layers = streamed.layer_count
        self._done = self._told = 0
        self._options = options

    def layer_done(self, layers: int, number: int) -> None:
        """Note that an input has gone through so many layers, the head counted as the last."""
        self._done += self._sizes[number]
        reached = self._scored * self._done // self._steps
        self._options.stage(f"layer {layers} of {self._layers}" if layers <= self._layers else "head")
        self._options.advance(reached - self._told)
        self._told = reached

    def take_back(self) -> None:
        """Take back what was told, since all begins again."""
        self._options.advance(-self._told)
        self._done = self._told = 0
