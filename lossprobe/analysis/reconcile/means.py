"""The means of one feed: of its batches, in the order of the text or grouped by length, with or without a MoE loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from lossprobe.analysis.logged.grouped import length_grouped
from lossprobe.analysis.logged.recipe import Denominator, Floats, Recipe, batch_sums, shared_values, weighted_mean
from lossprobe.analysis.logged.routing import batch_losses
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.programs import Mean, Program

COMMON_RANKS = 48  # a multiple of every number of ranks that is tried: as many batches are enough for all of them
LARGEST_LOSS = 700.0  # nats: its exponential is finite


@dataclass(frozen=True)
class Way:
    """How rows become a number, but for label smoothing.

    Attributes:
        recipe: batches and ranks.
        grouped: whether the rows are grouped by length, with the seed that is usual.
        balanced: whether the load-balancing loss of each batch is added, with its coefficient.
    """

    recipe: Recipe
    grouped: bool = False
    balanced: bool = False


class Means:
    """The means of one feed: computed once where programs differ only in name.

    Args:
        feed: the text as it was fed.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._without_zero = bool((feed.rows.tokens > 0).all())
        self._grouped: dict[int, Feed] = {}
        self._sums: dict[tuple[bool, int, bool], tuple[Floats, ...]] = {}
        self._known: dict[tuple[Way, Mean], tuple[float, float]] = {}

    def of(self, program: Program, way: Way) -> tuple[float, float]:
        """Return the mean loss, and the mean of −log p over the vocabulary; NaN where there is none."""
        if self._without_zero and way.recipe.denominator is Denominator.TOKENS_OR_ONE:
            way = replace(way, recipe=replace(way.recipe, denominator=Denominator.TOKENS, drops_nonfinite=True))
        key = (way, program.mean)
        if key not in self._known:
            self._known[key] = self._mean(program.mean, way)
        return self._known[key]

    def _mean(self, mean: Mean, way: Way) -> tuple[float, float]:
        feed, recipe = self._in_order(way), way.recipe
        rows = feed.rows
        counts = rows.labels if recipe.denominator is Denominator.LABELS else rows.tokens
        if mean is Mean.ROW_PERPLEXITIES:
            scored = counts > 0
            losses = rows.loss_nats[scored] / counts[scored]
            return float(np.log(np.exp(np.minimum(losses, LARGEST_LOSS)).mean())), math.nan
        if mean is Mean.TOKENS:
            return float(rows.loss_nats.sum() / counts.sum()), float(rows.uniform_loss_nats.sum() / counts.sum())
        added = None
        if way.balanced and feed.balancing is not None:
            added = feed.balancing.coefficient * batch_losses(feed.balancing.rows, recipe)
        loss, uniform, tokens, labels = self._batches(way)
        divisors = labels if recipe.denominator is Denominator.LABELS else tokens
        weights, first = shared_values(loss, divisors, recipe, len(rows))
        second = shared_values(uniform, divisors, recipe, len(rows))[1]
        first = first if added is None else first + added
        if mean is Mean.BATCHES:
            return float(first.mean()), float(second.mean())
        first_mean, second_mean = (weighted_mean(weights, values, recipe) for values in (first, second))
        return first_mean, second_mean if added is None else math.nan  # with smoothing no trainer adds it

    def _batches(self, way: Way) -> tuple[Floats, ...]:
        """Return the sums of loss, uniform loss, tokens and labels over batches, enough of them for any ranks."""
        size, several = way.recipe.rows_per_batch, way.recipe.ranks > 1
        key = (way.grouped, size, several)
        if key not in self._sums:
            rows = self._in_order(way).rows
            columns = (rows.loss_nats, rows.uniform_loss_nats, rows.tokens, rows.labels)
            self._sums[key] = tuple(batch_sums(each, size, COMMON_RANKS if several else 1) for each in columns)
        return self._sums[key]

    def _in_order(self, way: Way) -> Feed:
        """Return the feed with its rows in the order of a way."""
        size, feed = way.recipe.rows_per_batch, self._feed
        if not way.grouped or feed.lengths is None:
            return feed
        if size not in self._grouped:
            order = length_grouped(feed.lengths, size)
            routed = None if feed.balancing is None else feed.balancing.take(order)
            self._grouped[size] = replace(feed, rows=feed.rows.take(order), balancing=routed)
        return self._grouped[size]
