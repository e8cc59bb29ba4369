"""The means of one feed: of its batches, in the order of the text or grouped by length, with or without a MoE loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.logged.grouped import length_grouped
from lossprobe.analysis.logged.recipe import Denominator, Floats, Ranks, Recipe
from lossprobe.analysis.logged.routing import batch_losses
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.programs import Mean, Program

MOST_RANKS = 16  # that are tried
DENOMINATORS = (Denominator.TOKENS, Denominator.LABELS, Denominator.TOKENS_OR_ONE)
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
    """The means of one feed: each computed once, for all denominators together.

    With W ranks that share a mean, the batches of a step are one group: Σ_b w_b·W·S_b / ΣS over its batches is the
    weighted sum of the group over its tokens. Where ranks keep their own means, their number does not matter.

    Args:
        feed: the text as it was fed.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._grouped: dict[int, Feed] = {}
        self._sums: dict[tuple[bool, int, bool], Floats] = {}
        self._known: dict[tuple[bool, int, bool, int, Mean], Floats] = {}

    def of(self, program: Program, way: Way) -> tuple[float, float]:
        """Return the mean loss, and the mean of −log p over the vocabulary; NaN where there is none."""
        recipe, mean = way.recipe, program.mean
        if mean in (Mean.TOKENS, Mean.ROW_PERPLEXITIES):
            return self._without_batches(mean, recipe)
        averaged = recipe.sharing is Ranks.AVERAGED
        several, group = recipe.ranks > 1, recipe.ranks if averaged else 1
        key = (way.grouped, recipe.rows_per_batch, several, group, mean)
        if key not in self._known:
            self._known[key] = self._batched(*key)
        loss, uniform, added = self._known[key][:, DENOMINATORS.index(recipe.denominator)].tolist()
        factor = recipe.ranks if recipe.sharing is Ranks.MULTIPLIED else 1
        if way.balanced:
            return factor * loss + added, math.nan  # with smoothing no trainer adds it
        return factor * loss, factor * uniform

    def _without_batches(self, mean: Mean, recipe: Recipe) -> tuple[float, float]:
        rows = self._feed.rows
        counts = rows.labels if recipe.denominator is Denominator.LABELS else rows.tokens
        if mean is Mean.TOKENS:
            return float(rows.loss_nats.sum() / counts.sum()), float(rows.uniform_loss_nats.sum() / counts.sum())
        scored = counts > 0
        losses = rows.loss_nats[scored] / counts[scored]
        return float(np.log(np.exp(np.minimum(losses, LARGEST_LOSS)).mean())), math.nan

    def _batched(self, grouped: bool, size: int, several: bool, group: int, mean: Mean) -> Floats:
        """Return the means of loss, uniform loss and weighted MoE loss by each denominator, [3, `DENOMINATORS`].

        Args:
            grouped: whether the rows are grouped by length.
            size: rows of a batch.
            several: whether there are several ranks, which fill the last batch up.
            group: batches that share a mean.
            mean: whether batches weigh as many rows as they have, or the same; these are never left out.
        """
        sums, batches = self._batches(grouped, size, several), -(-len(self._feed.rows) // size)
        needed = -(-batches // group) * group
        weights = np.zeros(needed)  # those of batches that are beyond the rows stay 0
        weights[:batches] = 1.0 if mean is Mean.BATCHES else size
        if mean is not Mean.BATCHES:
            weights[batches - 1] = len(self._feed.rows) - size * (batches - 1)
        losses, counts = sums[:2, :needed] * weights, sums[2:4, :needed]
        if group > 1:
            losses, counts = (each.reshape(2, -1, group).sum(axis=2) for each in (losses, counts))
        with np.errstate(divide="ignore", invalid="ignore"):
            means = group * losses[:, None] / np.stack([counts[0], counts[1], np.maximum(counts[0], 1)])
        finite = np.isfinite(means)
        if mean is Mean.BATCHES or finite.all():
            kept = np.ones((3, needed), bool)
            total = means.sum(axis=2) / weights.sum()
        else:
            kept = np.repeat(finite[0], group, axis=1)
            shared = weights.reshape(-1, group).sum(axis=1)
            with np.errstate(invalid="ignore"):
                total = np.where(finite, means, 0).sum(axis=2) / (finite * shared).sum(axis=2)
        added = self._added(grouped, size, several, group, weights, kept)
        return np.concatenate([total, added[None]])

    def _added(
        self, grouped: bool, size: int, several: bool, group: int, weights: Floats, kept: npt.NDArray[np.bool_]
    ) -> Floats:
        """Return the mean of the weighted MoE losses over the batches that are kept, [`DENOMINATORS`]; 0 without."""
        routed = self._in_order(grouped, size).balancing
        if routed is None:
            return np.zeros(len(DENOMINATORS))
        recipe = Recipe(size, ranks=max(group, 2) if several else 1, sharing=Ranks.AVERAGED if group > 1 else Ranks.OWN)
        losses = routed.coefficient * batch_losses(routed.rows, recipe)
        kept, weights = kept[:, : len(losses)], weights[: len(losses)]
        with np.errstate(invalid="ignore"):
            mean: Floats = (kept * weights * losses).sum(axis=1) / (kept * weights).sum(axis=1)
        return mean

    def _batches(self, grouped: bool, size: int, several: bool) -> Floats:
        """Return the sums of loss, uniform loss, tokens and labels over batches, [4, B], enough of them for any ranks.

        Of several ranks' batches the last are filled up with rows from the start.
        """
        key = (grouped, size, several)
        if key not in self._sums:
            rows = self._in_order(grouped, size).rows
            columns = np.stack([rows.loss_nats, rows.uniform_loss_nats, rows.tokens, rows.labels])
            sums = np.add.reduceat(columns, np.arange(0, len(rows), size), axis=1)
            if several and size == len(rows):
                sums = np.repeat(sums, MOST_RANKS, axis=1)
            elif several:
                full = len(rows) // size
                filled = np.arange(full * size, (sums.shape[1] + MOST_RANKS) * size) % len(rows)
                sums = np.hstack([sums[:, :full], columns[:, filled].reshape(4, -1, size).sum(axis=2)])
            self._sums[key] = sums
        return self._sums[key]

    def _in_order(self, grouped: bool, size: int) -> Feed:
        """Return the feed with its rows in the order of the text, or grouped by length for a size of batches."""
        feed = self._feed
        if not grouped or feed.lengths is None:
            return feed
        if size not in self._grouped:
            order = length_grouped(feed.lengths, size)
            self._grouped[size] = feed.take(order)
        return self._grouped[size]
