"""What the rules look at: a log's losses, rates and gradients without the rows that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lossprobe.analysis.curve.finding import Finding
from lossprobe.analysis.curve.limits import STUCK_NATS, STUCK_SHARE, UNTRAINED_START
from lossprobe.analysis.curve.noise import Floats, Ints, scale
from lossprobe.logs.log import (
    EVALUATED_TRAIN,
    GRADIENT_NORM,
    LEARNING_RATE,
    LOSS,
    TRAIN,
    VALIDATION,
    Log,
    Series,
)

NEGATIVE = -1e-6  # nats: a mean of -log p that is lower is no rounding
HUGE = 1e30  # a larger value counts as this one, so that squares and sums stay finite


@dataclass(frozen=True)
class Points:
    """The finite values of a series.

    Attributes:
        key: the series' name in the log.
        steps: int64 [N], rising.
        values: float64 [N].
        epochs: float64 [N]; None where the log does not say.
    """

    key: str
    steps: Ints
    values: Floats
    epochs: Floats | None = None

    @classmethod
    def of(cls, series: Series) -> Points:
        """Return the finite values of a series; the same arrays where all are, as a long log has no room for two."""
        steps, values, epochs = series.steps, series.values, series.epochs
        finite = np.isfinite(values)
        if not finite.all():
            steps, values, epochs = steps[finite], values[finite], None if epochs is None else epochs[finite]
        if max(values.max(initial=0.0), -values.min(initial=0.0)) > HUGE:
            values = np.clip(values, -HUGE, HUGE)
        return cls(series.key, steps, values, epochs)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def noise(self) -> float:
        """The standard deviation of the values about their curve."""
        return scale(self.values)

    def step(self, row: int) -> int:
        """Return the step of a row."""
        return int(self.steps[row])

    def at(self, steps: Ints) -> Floats:
        """Return the values at some steps, straight between the rows and constant outside them."""
        if steps is self.steps:
            return self.values
        found: Floats = np.interp(steps, self.steps, self.values)
        return found

    def rows_since(self, row: int) -> Points:
        """Return the points from a row on."""
        epochs = None if self.epochs is None else self.epochs[row:]
        return Points(self.key, self.steps[row:], self.values[row:], epochs)


NOTHING = Points("", np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True)
class Seen:
    """A log as the rules see it; a series that the log lacks has no points.

    Attributes:
        log: the log.
        vocabulary: entries of the model's vocabulary, where known.
    """

    log: Log
    vocabulary: int | None = None

    def points(self, split: str, name: str) -> Points:
        """Return the finite values of a series."""
        series = self.log.find(split, name)
        return NOTHING if series is None else Points.of(series)

    @cached_property
    def train(self) -> Points:
        """The training loss; as evaluated, where the log has no other."""
        points = self.points(TRAIN, LOSS)
        return points if len(points) else self.points(EVALUATED_TRAIN, LOSS)

    @cached_property
    def train_like_validation(self) -> Points:
        """The training loss as evaluated, without dropout and over many batches, where the log has it."""
        points = self.points(EVALUATED_TRAIN, LOSS)
        return points if len(points) else self.train

    @cached_property
    def validation(self) -> Points:
        """The validation loss."""
        return self.points(VALIDATION, LOSS)

    @cached_property
    def rate(self) -> Points:
        """The learning rate."""
        return self.points(TRAIN, LEARNING_RATE)

    @cached_property
    def rates(self) -> Floats:
        """The learning rate at the rows of the training loss; none where the log lacks it."""
        return self.rate.at(self.train.steps) if len(self.rate) else NOTHING.values

    @cached_property
    def gradient(self) -> Points:
        """The gradient norm."""
        return self.points(TRAIN, GRADIENT_NORM)

    @property
    def uniform_nats(self) -> float | None:
        """The loss of a model that gives every token the same probability, ln V; None where V is not known."""
        return None if self.vocabulary is None else math.log(self.vocabulary)

    @property
    def single_token_nats(self) -> float:
        """The loss from which on a model may know no more than how frequent each token is."""
        if self.uniform_nats is not None:
            return STUCK_SHARE * self.uniform_nats
        first = float(self.train.values[0])
        return min(STUCK_NATS, STUCK_SHARE * first) if first >= UNTRAINED_START else STUCK_NATS

    @property
    def is_cross_entropy(self) -> bool:
        """Whether no loss is negative, as no mean of -log p is."""
        losses = (self.train.values, self.validation.values)
        return all(float(values.min(initial=0.0)) >= NEGATIVE for values in losses)


Rule = Callable[[Seen], Iterator[Finding]]
