"""Engines score the parts of a plan: an engine takes parts and returns their scores, and writes nothing.

Parts and scores are plain data that can be pickled. An engine may therefore score parts in other processes or on other
machines, in any order, and score a part again if its worker was lost. Only the driver stores scores, so the run has the
same bytes with every engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from lossprobe.checkpoint.interface import Checkpoint, SharedPrefix, prefix_of
from lossprobe.checkpoint.layer_by_layer import streamed_of
from lossprobe.checkpoint.retokenized import RetokenizedCheckpoint
from lossprobe.passes.known_text import sides_of
from lossprobe.plan.part_scores import PartScores
from lossprobe.plan.rows import Rows
from lossprobe.text.documents import Source
from lossprobe.text.stage import Stage, no_stage

Advance = Callable[[int], None]
PARTS_AHEAD = 2  # parts that a GPU gets before the scores of one are read


@dataclass(frozen=True)
class Part:
    """One part of a plan.

    Attributes:
        index: its number in the plan.
        rows: its own rows, and those before them that are only context.
        first_row: number of its first own row in the run.
    """

    index: int
    rows: Rows
    first_row: int


class Parts:
    """Parts that are read when they are asked for, and whose number is known before.

    Args:
        numbers: their numbers in the plan.
        read: reads the part of a number.
    """

    def __init__(self, numbers: Sequence[int], read: Callable[[int], Part]) -> None:
        self._numbers, self._read = numbers, read

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Part]:
        return map(self._read, self._numbers)


@dataclass(frozen=True)
class PartOptions:
    """How every part of a pass is scored.

    Attributes:
        batch_size: most windows per forward pass; None chooses by device and memory.
        sample_every: the temperature ladder is kept for every n-th row of the run.
    """

    batch_size: int | None
    sample_every: int


class Engine(Protocol):
    """The protocol of an engine: scores parts with models of its own."""

    def score(self, parts: Iterable[Part], options: PartOptions, advance: Advance) -> Iterator[tuple[Part, PartScores]]:
        """Yield every part with its scores, in any order, each once.

        Args:
            parts: the parts, read only as far as needed; an engine with several workers needs to know how many.
            options: the options of all parts.
            advance: called with tokens as they are scored, where that is known before a part is done; a part that
                failed is taken back by a negative number.

        Raises:
            LossprobeError: as `score_part`.
        """
        ...


class LocalEngine:
    """Scores parts one after the other in this process, with a checkpoint that is open.

    Args:
        checkpoint: the checkpoint.
        shared: runs pairs of documents after their common start; None for documents that are no pairs.
        stage: called with what a model whose layers are read one after the other is at.
        share: as in `measure.PassOptions`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        shared: SharedPrefix | None = None,
        stage: Stage | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._checkpoint = checkpoint
        self._shared = shared
        self._share = share
        self._stage = stage or no_stage

    def score(self, parts: Iterable[Part], options: PartOptions, advance: Advance) -> Iterator[tuple[Part, PartScores]]:
        """Yield every part with its scores, in order."""
        from lossprobe.scoring import scorer  # with torch, which a stored run does not need
        from lossprobe.scoring.measure import PassOptions

        streamed = streamed_of(self._checkpoint)
        if streamed is not None:
            yield from self._together(parts, streamed.tokens_together, options, advance)
            return
        on_gpu = self._checkpoint.facts.device.startswith("cuda")
        # What is queued on a GPU is not scored yet: a part counts when its scores are stored.
        told = _not_yet if on_gpu else advance
        passing = PassOptions(
            options.batch_size, options.sample_every, told, shared=self._shared, share=self._share
        )  # holds buffers for all parts
        # A GPU gets the next parts before the scores of one are read and stored, so that it is never without work.
        ahead = PARTS_AHEAD if on_gpu else 0
        queued: deque[tuple[Part, Callable[[], PartScores]]] = deque()
        for part in parts:
            queued.append((part, scorer.queue_part(self._checkpoint, part.rows, part.first_row, passing)))
            if len(queued) > ahead:
                done, finish = queued.popleft()
                yield done, finish()
        for done, finish in queued:
            yield done, finish()

    def _together(
        self, parts: Iterable[Part], most_tokens: int, options: PartOptions, advance: Advance
    ) -> Iterator[tuple[Part, PartScores]]:
        """Yield every part with its scores, in order; several go through each layer while it is in memory."""
        from lossprobe.scoring.measure import PassOptions
        from lossprobe.scoring.together import score_together

        passing = PassOptions(options.batch_size, options.sample_every, advance, self._stage)
        for group in _grouped(parts, most_tokens):
            placed = [(part.rows, part.first_row) for part in group]
            yield from zip(group, score_together(self._checkpoint, placed, passing), strict=True)


def _grouped(parts: Iterable[Part], most_tokens: int) -> Iterator[list[Part]]:
    """Yield the parts in groups of so many tokens at most, or of one part."""
    from lossprobe.scoring.together import input_tokens

    group: list[Part] = []
    held = 0
    for part in parts:
        tokens = input_tokens(part.rows)
        if group and held + tokens > most_tokens:
            yield group
            group, held = [], 0
        group.append(part)
        held += tokens
    if group:
        yield group


def _not_yet(scored: int) -> None:
    """Tell nobody."""


@runtime_checkable
class StagedProgress(Protocol):
    """A progress callback that also shows what is done before scoring, and in a model that is read in pieces."""

    def stage(self, text: str) -> None:
        """Show a stage, such as "layer 3 of 32"; an empty text ends the one before."""
        ...


def stage_of(progress: object) -> Stage:
    """Return what shows the stage of a pass, which does nothing where its progress callback cannot."""
    return progress.stage if isinstance(progress, StagedProgress) else no_stage


@runtime_checkable
class RemoteCheckpoint(Protocol):
    """A checkpoint whose model other processes hold, which score with it."""

    def shares_prefix(self) -> bool:
        """Return whether the model can go on from a prompt that it has read once."""
        ...

    def engine(self, bos_id: int | None, *, own_tokenizer: bool, shared_prefix: bool) -> Engine:
        """Return the engine that scores with this checkpoint.

        Args:
            bos_id: the BOS of the tokenizer that the text is planned with.
            own_tokenizer: whether that is the checkpoint's own.
            shared_prefix: run pairs of documents after their common start.
        """
        ...


def engine_of(checkpoint: Checkpoint, source: Source, progress: object = None) -> Engine:
    """Return what scores with a checkpoint: this process, or those that hold its model.

    The prompt of each pair is run once, or a notice says that the model cannot do so.

    Args:
        checkpoint: the checkpoint.
        source: the text; gets a notice.
        progress: the progress callback, which may be a `StagedProgress`.
    """
    model = checkpoint.model if isinstance(checkpoint, RetokenizedCheckpoint) else checkpoint
    own, pairs = model is checkpoint, bool(sides_of(source))
    if isinstance(model, RemoteCheckpoint):
        shares = pairs and own and model.shares_prefix()
        engine = model.engine(checkpoint.tokenizer.bos_id, own_tokenizer=own, shared_prefix=shares)
    else:
        shared = prefix_of(checkpoint) if pairs else None
        shares, engine = shared is not None, LocalEngine(checkpoint, shared, stage_of(progress))
    if pairs and not shares:
        what = (
            "this model cannot go on from a prompt that it has read once, so both sides of each pair are scored whole"
        )
        source.notices.append(f"{checkpoint.facts.name}: {what}")
    return engine
