"""Scores several parts together with a model whose layers are read one after the other: each layer once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.layer_by_layer import LayerByLayer, streamed_of
from lossprobe.errors import ResourceError
from lossprobe.plan.part_scores import PartScores
from lossprobe.plan.rows import Integers, Rows, unscored_windows_of, windows_of
from lossprobe.scoring.batches import Batch, batch_inputs, make_batches, token_budget
from lossprobe.scoring.collector import Collector, NonFiniteLossError
from lossprobe.scoring.measure import PassOptions, hidden_rows, is_out_of_memory, measure, named_error, picked_rows
from lossprobe.scoring.routing import Routers, has_routers
from lossprobe.scoring.transfer import mark, upload, wait_for
from lossprobe.units import plural

Placed = tuple[Rows, int]  # a part, and the number of its first own row in the run


@dataclass(frozen=True)
class _Input:
    part: int
    batch: Batch
    ids: torch.Tensor
    place: Integers
    target: Integers
    lengths: torch.Tensor | None  # tokens of each row, where routers are summed


@dataclass(frozen=True)
class _PlacedPart:
    rows: Rows
    first_row: int
    routers: Routers | None


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
        routed = has_routers(checkpoint)
        placed = [_PlacedPart(rows, first, Routers(checkpoint, rows) if routed else None) for rows, first in parts]
        inputs = [
            each
            for number, part in enumerate(placed)
            for each in _inputs(checkpoint, number, part.rows, batch_size, part.routers)
        ]
        credit = _Credit(inputs, streamed, options)
        try:
            yield from _score_inputs(checkpoint, streamed, placed, inputs, options, credit)
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


def _inputs(
    checkpoint: Checkpoint, part: int, rows: Rows, batch_size: int | None, routers: Routers | None
) -> Iterator[_Input]:
    """Yield the batches of a part, with what the model gets of them; those without a loss only for routers."""
    facts = checkpoint.facts
    batches = make_batches(windows_of(rows), batch_size, token_budget(facts.device), facts.batching)
    unscored = [] if routers is None else make_batches(unscored_windows_of(rows), 1, 0)
    for number, batch in enumerate([*batches, *unscored]):
        ids, place, target = batch_inputs(rows, batch, checkpoint.tokenizer.bos_id)
        seen, lengths = (torch.from_numpy(ids), None) if routers is None else routers.inputs(ids, batch.windows)
        some = slice(None if number < len(batches) else 0)
        yield _Input(part, batch, seen, place[some], target[some], lengths)


def _results(
    checkpoint: Checkpoint, streamed: LayerByLayer, inputs: Sequence[_Input], credit: _Credit
) -> Iterator[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]]:
    """Yield the hidden states of each batch, and the sums of its routers where they are summed."""
    ids = [upload(each.ids, checkpoint.facts.device) for each in inputs]
    lengths = [each.lengths for each in inputs if each.lengths is not None]
    if not lengths:
        yield from ((hidden, None) for hidden in streamed.hidden_of_all(ids, credit.layer_done))
        return
    for hidden, *sums in streamed.hidden_and_routing_of_all(ids, lengths, credit.layer_done):
        yield hidden, (sums[0], sums[1])


def _score_inputs(
    checkpoint: Checkpoint,
    streamed: LayerByLayer,
    parts: Sequence[_PlacedPart],
    inputs: Sequence[_Input],
    options: PassOptions,
    credit: _Credit,
) -> Iterator[PartScores]:
    """Yield the statistics of each part."""
    results = _results(checkpoint, streamed, inputs, credit)
    for number, part in enumerate(parts):
        collector = Collector(part.rows)
        try:
            for index, each in enumerate(inputs):
                if each.part == number:
                    hidden, sums = next(results)
                    if sums is not None and part.routers is not None and each.lengths is not None:
                        part.routers.add(each.batch.windows, each.lengths, *sums)
                    if len(each.target):
                        rows = _picked(hidden, each)
                        measure(checkpoint, rows, each.target, collector, part.first_row, options)
                    credit.layer_done(streamed.layer_count + 1, index)
            wait_for(mark(checkpoint.facts.device))
            scores = collector.finish()
        except NonFiniteLossError as error:
            raise named_error(error, checkpoint, part.rows) from None
        yield scores if part.routers is None else replace(scores, routing=part.routers.finish())
        credit.finished += 1


def _picked(hidden: torch.Tensor, each: _Input) -> torch.Tensor:
    """Return the hidden rows that predict a batch's scored tokens; routers may have been given one token more."""
    return picked_rows(hidden[:, : each.batch.width], each.place)


class _Credit:
    """Tells of progress: a token counts by the share of layers, the head as one more, that it has gone through.

    Attributes:
        finished: number of parts that are scored.
    """

    def __init__(self, inputs: Sequence[_Input], streamed: LayerByLayer, options: PassOptions) -> None:
        self.finished = 0
        self._sizes = [each.ids.numel() for each in inputs]
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
