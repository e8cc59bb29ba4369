"""What a training log holds: series of numbers over training steps, as every reader gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
EVALUATED_TRAIN = "train_evaluated"  # the training text, measured as validation is: many batches, without dropout

LOSS = "loss"
LEARNING_RATE = "learning_rate"
GRADIENT_NORM = "grad_norm"
ENTROPY = "entropy"
ACCURACY = "accuracy"
PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class Series:
    """One quantity of a log over the steps of training, each step once and in order.

    Attributes:
        split: what it was measured on: `TRAIN`, `VALIDATION`, `TEST`, `EVALUATED_TRAIN`, or the name that the
            log gives to another text.
        name: what it is, such as `LOSS`; other numbers keep the log's own name.
        key: its name in the log, such as "eval_loss" or "train/loss".
        steps: optimizer steps, int64 [N], rising.
        values: float64 [N]; a loss is in nats, also where the log has bits. It may be NaN or infinite.
        epochs: epochs at these steps, float64 [N]; None where the log does not say.
        tokens: training tokens so far, float64 [N]; None where the log does not say.
    """

    split: str
    name: str
    key: str
    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    epochs: NDArray[np.float64] | None = None
    tokens: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Restart:
    """A place where a run went back and wrote steps again; of each step the last value was kept.

    Attributes:
        last_step: the last step before it.
        next_step: the step that it went on from.
        rewritten: steps that were written on both sides of it.
    """

    last_step: int
    next_step: int
    rewritten: int


@dataclass(frozen=True)
class Log:
    """A training log.

    Attributes:
        path: its file.
        kind: what wrote it, such as "trainer_state", "tensorboard", "nanogpt".
        series: its quantities; at most one of each split and name, but for losses of several texts.
        restarts: where it went back, in order.
        vocabulary: entries of the model's vocabulary, where the log says.
        steps_counted: whether the log has no steps, so that they are its rows, counted from 1, or its epochs.
        notes: what a reader must know of how it was read, one line each.
    """

    path: Path
    kind: str
    series: tuple[Series, ...]
    restarts: tuple[Restart, ...] = ()
    vocabulary: int | None = None
    steps_counted: bool = False
    notes: tuple[str, ...] = field(default=())

    def find(self, split: str, name: str) -> Series | None:
        """Return the first series of a split and a name, or None."""
        return next((each for each in self.series if (each.split, each.name) == (split, name)), None)
