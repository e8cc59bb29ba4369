"""What runs in a process that scores for another: opens checkpoints, says what it found, and scores parts.

Questions and answers are bytes, so that Ray, and the process that is between this one and the one that plans, never
have to know our classes: where another lossprobe runs there, this is found by the versions before anything is unpacked.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lossprobe.checkpoint.deferred import TokenizerFacts
from lossprobe.checkpoint.interface import Checkpoint, CheckpointFacts, prefix_of
from lossprobe.checkpoint.retokenized import RetokenizedCheckpoint
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.errors import LossprobeError
from lossprobe.passes.engines import LocalEngine, Part, PartOptions
from lossprobe.passes.identity import UNSTORED
from lossprobe.plan.part_scores import PartScores

Failure = dict[str, Any]
PLACES = UNSTORED | {"config_from", "adapter"}  # facts that name files, which may lie elsewhere on another node


@dataclass(frozen=True)
class Model:
    """A checkpoint as a worker has to open it.

    Attributes:
        spec: the checkpoint, with absolute paths.
        keep: most models in memory at once.
        share_base: whether checkpoints have a base in common, which is then loaded once.
    """

    spec: CheckpointSpec
    keep: int = 1
    share_base: bool = False


@dataclass(frozen=True)
class Opened:
    """What a worker found when it opened a checkpoint.

    Attributes:
        facts: the facts of the checkpoint.
        tokenizer: its pickled tokenizer, which the process that plans uses.
        agreed: what every other worker must find too; see `Worker.agreed`.
    """

    facts: CheckpointFacts
    tokenizer: bytes
    agreed: dict[str, str]


@dataclass(frozen=True)
class Pass:
    """What is the same for all parts of a pass.

    Attributes:
        model: the checkpoint.
        bos_id: the BOS of the tokenizer that the text was planned with.
        own_tokenizer: whether that is the checkpoint's own.
        shared_prefix: run pairs of documents after their common start.
        options: how every part is scored.
    """

    model: Model
    bos_id: int | None
    own_tokenizer: bool
    shared_prefix: bool
    options: PartOptions


@dataclass(frozen=True)
class _OtherTokenizer:
    """As much of another tokenizer as scoring asks for."""

    bos_id: int | None


class Worker:
    """Answers questions about checkpoints, and scores parts. Models stay in memory between questions.

    Args:
        opener: opens checkpoints; None for one that does as a question says.
        share: as in `LocalEngine`.
    """

    def __init__(self, opener: Opener | None = None, share: tuple[int, int] = (0, 1)) -> None:
        self._own, self._share = opener is None, share
        self._opener = opener or Opener()

    def answer(self, question: str, *asked: bytes) -> tuple[bool, bytes]:
        """Return whether a question could be answered, and the pickled answer, or the failure as JSON."""
        answers: dict[str, Callable[..., object]] = {
            "open": self.open,
            "agreed": self.agreed,
            "shares prefix": self.shares_prefix,
            "score": self.score,
        }
        try:
            found = answers[question](*map(pickle.loads, asked))
        except Exception as error:  # noqa: BLE001 - raised again where the driver of the pass is
            return False, json.dumps(failure_of(error)).encode()
        return True, pickle.dumps(found, pickle.HIGHEST_PROTOCOL)

    def open(self, model: Model) -> Opened:
        """Open a checkpoint, and return what was found.

        Raises:
            LossprobeError: as in `detect.open_checkpoint`.
        """
        checkpoint = self._checkpoint(model)
        tokenizer = pickle.dumps(checkpoint.tokenizer, pickle.HIGHEST_PROTOCOL)
        return Opened(checkpoint.facts, tokenizer, self.agreed(model))

    def agreed(self, model: Model) -> dict[str, str]:
        """Open a checkpoint, and return what decides the bytes of its losses, in words.

        That is every fact except where files lie, its tokenizer, the instructions and threads of the processor that
        torch uses, and the name of the GPU.
        """
        from lossprobe.checkpoint.machine import arithmetic  # with torch, which this process imports for a model only

        checkpoint = self._checkpoint(model)
        facts = {name: str(value) for name, value in asdict(checkpoint.facts).items() if name not in PLACES}
        facts["tokenizer"] = TokenizerFacts.of(checkpoint.tokenizer).sha256
        return facts | arithmetic(checkpoint.facts.device)

    def shares_prefix(self, model: Model) -> bool:
        """Return whether a checkpoint can go on from a prompt that it has read once."""
        return prefix_of(self._checkpoint(model)) is not None

    def score(self, task: Pass, part: Part) -> PartScores:
        """Return the scores of a part.

        Raises:
            LossprobeError: as `scorer.queue_part`.
        """
        own = self._checkpoint(task.model)
        shared = prefix_of(own) if task.shared_prefix else None
        other: Any = _OtherTokenizer(task.bos_id)
        checkpoint = own if task.own_tokenizer else RetokenizedCheckpoint(own, other)
        engine = LocalEngine(checkpoint, shared, share=self._share)
        ((_, scores),) = engine.score([part], task.options, _tell_nobody)
        return scores

    def _checkpoint(self, model: Model) -> Checkpoint:
        other = (self._opener.keep, self._opener.share_base) != (model.keep, model.share_base)
        if self._own and other:
            self._opener = Opener(model.keep, share_base=model.share_base)
        return self._opener.open(model.spec)


def _tell_nobody(_scored: int) -> None:
    """A part counts when its scores are stored."""


def failure_of(error: Exception) -> Failure:
    """Return an error as JSON data."""
    if isinstance(error, LossprobeError):
        told = {"id": error.id, "reason": error.reason, "hint": error.hint, "subject": error.subject}
        return {"kind": type(error).__name__, **told, "details": list(error.details)}
    if isinstance(error, OSError) and error.errno is not None:
        return {"kind": "OSError", "reason": error.strerror, "errno": error.errno}
    if isinstance(error, MemoryError | RuntimeError):
        return {"kind": "MemoryError" if isinstance(error, MemoryError) else "RuntimeError", "reason": str(error)}
    return {"kind": "RuntimeError", "reason": f"{type(error).__name__}: {error}"}
