"""How trainers make one number of the losses of rows: batches, denominators, ranks and smoothing.

A trainer scores rows in batches and logs a mean of batch means, so that the size of a batch and the order of the rows
are part of its number. The formulas were read in the sources of transformers 4.57.6 to 5.23.0, accelerate 1.15.0 and
TRL 1.16.0, and compared with what these programs log.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSums:
    """What is summed over each row (document) of a text, in the order of the rows; every field is [R].

    Attributes:
        loss_nats: float64, sum of the losses of its scored tokens.
        uniform_loss_nats: float64, sum of the means of −log p over the vocabulary at the same tokens.
        entropy_nats: float64, sum of the entropies of the predictions there.
        tokens: int64, number of its scored tokens.
        labels: int64, number of its labels before they are shifted: `tokens`, and the row's first token if its label
            is not ignored.
        correct: int64, number of scored tokens that were the model's first choice.
    """

    loss_nats: Floats
    uniform_loss_nats: Floats
    entropy_nats: Floats
    tokens: Integers
    labels: Integers
    correct: Integers

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, order: Integers) -> RowSums:
        """Return the rows with these numbers, in this order."""
        return RowSums(*(getattr(self, name)[order] for name in self.__dataclass_fields__))


class Denominator(StrEnum):
    """By what the summed loss of a batch is divided.

    Attributes:
        TOKENS: the scored tokens; a batch without any has no value (not a number).
        LABELS: the labels before the shift, which counts the first of each row although it is never predicted.
        TOKENS_OR_ONE: the scored tokens, at least 1, so that a batch without any counts as 0.
    """

    TOKENS = "tokens"
    LABELS = "labels"
    TOKENS_OR_ONE = "tokens_or_one"


class Ranks(StrEnum):
    """How several processes share the mean of a global batch.

    Attributes:
        AVERAGED: each adds its sum, times the number of ranks, over the count of all of them.
        OWN: each adds the mean over its own batch.
        MULTIPLIED: each adds the mean over its own batch times the number of ranks, as transformers to 5.14 does with
            label smoothing: the number is that many times too large.
    """

    AVERAGED = "averaged"
    OWN = "own"
    MULTIPLIED = "multiplied"


@dataclass(frozen=True)
class Recipe:
    """How one number is made of the losses of rows.

    Attributes:
        rows_per_batch: rows of a batch on one rank.
        denominator: by what the sum of a batch is divided.
        ranks: number of processes.
        sharing: how they share the mean.
        smoothing: label smoothing ε of the loss: (1 − ε)·loss + ε·(mean of −log p over the vocabulary).
        drops_nonfinite: whether batches without a finite value are left out of the mean, if any has one.
    """

    rows_per_batch: int
    denominator: Denominator = Denominator.TOKENS
    ranks: int = 1
    sharing: Ranks = Ranks.AVERAGED
    smoothing: float = 0.0
    drops_nonfinite: bool = True


def logged_loss(rows: RowSums, recipe: Recipe, added: Floats | None = None) -> float:
    """Return the loss that a trainer logs for rows, in nats.

    With one rank it is Σ R_b·L_b / Σ R_b over the batches b of R_b rows: every row weighs the same, whatever its
    length. With W ranks, batches go to the ranks in turn, and the last global batch is filled up with rows from the
    start; each rank's value stands for its rows, and values beyond the number of rows are cut off.

    Args:
        rows: the rows, in the order in which the trainer sees them.
        recipe: how the trainer works.
        added: [B], what the trainer adds to the value of each batch, as `batch_values` counts them; None for nothing.

    Returns:
        The loss; not a number if no batch has a finite value.

    >>> tokens, zeros = np.array([4, 16]), np.zeros(2)
    >>> rows = RowSums(np.array([4.0, 32.0]), zeros, zeros, tokens, tokens + 1, tokens)
    >>> [logged_loss(rows, Recipe(size)) for size in (1, 2)]  # means 1 and 2, or 36 nats over 20 tokens
    [1.5, 1.8]
    """
    losses = (1 - recipe.smoothing) * rows.loss_nats + recipe.smoothing * rows.uniform_loss_nats
    return mean_of_rows(losses, rows.labels if recipe.denominator is Denominator.LABELS else rows.tokens, recipe, added)


def mean_of_rows(sums: Floats, counts: Integers, recipe: Recipe, added: Floats | None = None) -> float:
    """Return the mean that `logged_loss` takes, of any sums over rows.

    Args:
        sums: [R], what is summed over each row.
        counts: int64 [R], by what it is divided.
        recipe: how batches and ranks share the mean; its denominator only says whether a batch without any token is 0.
        added: as in `logged_loss`.
    """
    weights, values = batch_values(sums, counts, recipe)
    return weighted_mean(weights, values if added is None else values + added, recipe)


def weighted_mean(weights: Floats, values: Floats, recipe: Recipe) -> float:
    """Return the mean of the values of batches, each [B], by their weights."""
    finite = np.isfinite(values)
    if recipe.drops_nonfinite and finite.any():
        weights, values = weights[finite], values[finite]
    return float(weights @ values / weights.sum())


def batch_values(sums: Floats, counts: Integers, recipe: Recipe) -> tuple[Floats, Floats]:
    """Return the weight and the value of every batch that counts, each [B]; arguments as in `mean_of_rows`."""
    totals, divisors = (batch_sums(each, recipe.rows_per_batch, recipe.ranks) for each in (sums, counts))
    return shared_values(totals, divisors, recipe, len(sums))


def batch_sums(values: Floats | Integers, rows_per_batch: int, ranks: int) -> Floats:
    """Return the sums over batches of consecutive rows.

    On one rank the last batch is as short as it comes. On several all ranks have as many batches, and what is missing
    is filled up with rows from the start.

    Args:
        values: [R], of each row.
        rows_per_batch: rows of a batch on one rank.
        ranks: number of processes.
    """
    if ranks == 1:
        return np.add.reduceat(values, np.arange(0, len(values), rows_per_batch)).astype(np.float64)
    batches = -(-len(values) // (rows_per_batch * ranks)) * ranks
    filled = np.resize(values, batches * rows_per_batch)  # repeats from the start
    totals: Floats = filled.reshape(batches, rows_per_batch).sum(axis=1).astype(np.float64)
    return totals


def shared_values(totals: Floats, divisors: Floats, recipe: Recipe, rows: int) -> tuple[Floats, Floats]:
    """Return the weight and the value of every batch that counts, each [B].

    Args:
        totals: from `batch_sums`, of what is summed; more batches than the ranks need are ignored.
        divisors: the same of what it is divided by.
        recipe: how ranks share the mean.
        rows: number of rows.
    """
    size, ranks = recipe.rows_per_batch, recipe.ranks
    batches = -(-rows // size)
    needed = -(-batches // ranks) * ranks
    totals, divisors = (each[:needed].reshape(-1, ranks) for each in (totals, divisors))
    if ranks > 1 and recipe.sharing is Ranks.AVERAGED:
        divisors = divisors.sum(axis=1, keepdims=True)
    if ranks > 1 and recipe.sharing is not Ranks.OWN:
        totals = totals * ranks
    if recipe.denominator is Denominator.TOKENS_OR_ONE:
        divisors = np.maximum(divisors, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values: Floats = (totals / divisors).ravel()[:batches]
    weights = np.full(batches, float(size))
    weights[-1] = rows - size * (batches - 1)
    return weights, values


def mean_of_batches(sums: npt.NDArray[Any], tokens: Integers, rows_per_batch: int) -> float | None:
    """Return the unweighted mean over batches of the mean per token; None if a batch has no scored token.

    TRL logs eval_entropy and eval_mean_token_accuracy so.

    Args:
        sums: [R], what is summed over each row.
        tokens: int64 [R], scored tokens of each row.
        rows_per_batch: rows of a batch.
    """
    edges = np.arange(0, len(tokens), rows_per_batch)
    counts = np.add.reduceat(tokens, edges)
    return float(np.mean(np.add.reduceat(sums, edges) / counts)) if counts.all() else None
