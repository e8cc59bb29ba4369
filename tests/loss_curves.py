"""Training logs made of given numbers, for the rules that judge them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lossprobe.analysis.curve.examine import examine
from lossprobe.analysis.curve.finding import Finding
from lossprobe.logs.log import GRADIENT_NORM, LEARNING_RATE, LOSS, TRAIN, VALIDATION, Log, Restart, Series

UNEVEN = np.array([1.0, -1.0, 0.5, -0.5, -1.0, 1.0, 0.0, 0.8, -0.8, 0.2, -0.2])  # noise of eleven rows, mean 0


def uneven(rows: int, size: float) -> np.ndarray:
    """Return noise of a given size whose values are known and in no cycle."""
    return size * np.random.default_rng(0).permutation(np.resize(UNEVEN, rows))


def falling(rows: int, first: float = 10.0, last: float = 3.0, noise: float = 0.03) -> np.ndarray:
    """Return a power law from `first` towards `last`, with noise about it."""
    return last + (first - last) / np.sqrt(1.0 + np.arange(rows) / (0.02 * rows)) + uneven(rows, noise)


def log_of(train=(), validation=(), rate=None, gradient=None, *, every=1, epochs=None, restarts=(), more=()) -> Log:
    """Return a log with rows at steps every, 2 every, …, and evaluations spread evenly up to the last.

    `epochs` is how many the rows make; `restarts` are steps that the run went on from; `more` are pairs of a name and
    its values at the training rows.
    """
    train = np.asarray(train, float)
    steps = np.arange(1, len(train) + 1) * every
    along = None if epochs is None else steps / steps[-1] * epochs
    series = [Series(TRAIN, LOSS, "loss", steps, train, along)] if len(train) else []
    if len(validation):
        last = steps[-1] if len(steps) else 100 * len(validation)
        at = np.linspace(0, last, len(validation) + 1)[1:].astype(np.int64)
        series.append(Series(VALIDATION, LOSS, "eval_loss", at, np.asarray(validation, float)))
    for name, values in ((LEARNING_RATE, rate), (GRADIENT_NORM, gradient), *more):
        if values is not None:
            filled = np.broadcast_to(np.asarray(values, float), train.shape)
            series.append(Series(TRAIN, name, name, steps, filled))
    went_back = tuple(Restart(step + every, step, 2) for step in restarts)
    return Log(Path("log"), "made", tuple(series), went_back)


def found(log: Log, vocabulary: int | None = None) -> dict[str, Finding]:
    """Return the findings of a log by diagnosis."""
    return {finding.diagnosis.name: finding for finding in examine(log, vocabulary)}
