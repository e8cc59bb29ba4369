"""Enumerates the recipes that could have made a number, with the value and the cost of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lossprobe.analysis.logged.recipe import (
    Denominator,
    Floats,
    Integers,
    Ranks,
    Recipe,
    RowSums,
    batch_values,
    mean_of_rows,
)
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.logged_value import LogEvidence
from lossprobe.analysis.reconcile.programs import (
    USUAL_BATCH,
    Mean,
    Program,
    batch_cost,
    batches_cost,
    feed_cost,
    programs_of,
    ranks_cost,
    smoothing_cost,
    writer_cost,
)
from lossprobe.units import format_count

SMOOTHINGS = (0.0, 0.05, 0.1, 0.2)
RANKS = (1, 2, 3, 4, 6, 8, 16)
EVERY_SIZE = 64  # every size of batches up to it, and powers of two
LARGEST_SIZE = 1024
MOST_COST = 5  # recipes further from every default are not tried
MANY_RANKS_COST = 2  # of a feed and a program, above which only one process is tried
SCALES = ("nats", "perplexity", "bits")
SCALE_COSTS = (0, 1, 2)
LARGEST_LOSS = 700.0  # nats: its exponential is finite


@dataclass(frozen=True)
class Block:
    """All recipes of one program on one feed; arrays are [N].

    Attributes:
        feed: the text as it was fed.
        program: the program.
        order: number of the program in the order of `programs_of`; smaller is better known.
        means: batches and ranks of its recipes.
        values: float64, the number that each recipe gives.
        costs: int64, how far it is from the program's defaults.
        mean: int64, its number in `means`.
        smoothing: float64, its label smoothing.
        scale: int64, the unit of its number, an index into `SCALES`.
    """

    feed: Feed
    program: Program
    order: int
    means: Sequence[Recipe]
    values: Floats
    costs: Integers
    mean: Integers
    smoothing: Floats
    scale: Integers

    def words(self, index: int) -> str:
        """Return a recipe in words."""
        recipe = replace(self.means[self.mean[index]], smoothing=float(self.smoothing[index]))
        told = _recipe_words(self.program, recipe, SCALES[self.scale[index]], len(self.feed.rows))
        return "; ".join([self.program.words, *self.feed.phrases(), *told])


@dataclass(frozen=True)
class Candidates:
    """All recipes that were tried."""

    blocks: tuple[Block, ...]

    @cached_property
    def values(self) -> Floats:
        """The number that each recipe gives, float64 [N]."""
        return np.concatenate([block.values for block in self.blocks] or [np.zeros(0)])

    @cached_property
    def costs(self) -> Integers:
        """How far each is from a program's defaults, int64 [N]."""
        return np.concatenate([block.costs for block in self.blocks] or [np.zeros(0, np.int64)])

    @cached_property
    def orders(self) -> Integers:
        """Number of the program of each in the order in which they are known, int64 [N]."""
        parts = [np.full(len(block.values), block.order) for block in self.blocks]
        return np.concatenate(parts or [np.zeros(0, np.int64)])

    def block_of(self, index: int) -> tuple[Block, int]:
        """Return the block of a recipe, and its number in it."""
        for block in self.blocks:
            if index < len(block.values):
                return block, index
            index -= len(block.values)
        raise IndexError(index)


def enumerate_recipes(feeds: Sequence[Feed], *, before_shift: bool, evidence: LogEvidence | None = None) -> Candidates:
    """Return the recipes for every way in which a text may have been fed.

    Args:
        feeds: the ways.
        before_shift: as in `programs_of`.
        evidence: what the log says of the evaluation.
    """
    evidence = evidence or LogEvidence()
    blocks = []
    for feed in feeds:
        means = Means(feed.rows)
        for order, program in enumerate(programs_of(feed, before_shift=before_shift)):
            cost = program.cost + feed_cost(program, feed) + writer_cost(program, evidence)
            if cost <= MOST_COST and len(feed.rows) and feed.rows.tokens.any():
                blocks.append(_block(feed, program, order, cost, means, evidence))
    return Candidates(tuple(blocks))


def sizes_of(rows: int) -> list[int]:
    """Return the sizes of batches that are tried for a number of rows."""
    powers = [1 << power for power in range(LARGEST_SIZE.bit_length())]
    return sorted({min(size, rows) for size in (*range(1, EVERY_SIZE + 1), *powers, rows)})


def _block(feed: Feed, program: Program, order: int, cost: int, means: Means, evidence: LogEvidence) -> Block:
    """Return the recipes of a program on a feed: its means, each with every smoothing and unit."""
    found = list(_recipes(program, len(feed.rows), cost, evidence))
    recipes = [recipe for recipe, _ in found]
    plain, uniform = np.array([means.of(program, recipe) for recipe in recipes]).reshape(-1, 2).T
    more = np.array([extra for _, extra in found], np.int64)
    numbers = np.arange(len(found))
    parts = []
    for smoothing in SMOOTHINGS:
        for scale, extra in enumerate(SCALE_COSTS):
            perplexities = program.mean is Mean.ROW_PERPLEXITIES
            if perplexities and (SCALES[scale] != "perplexity" or smoothing):
                continue
            loss = (1 - smoothing) * plain + smoothing * uniform if smoothing else plain
            costs = cost + more + smoothing_cost(smoothing) + extra
            kept = (costs <= MOST_COST) & np.isfinite(loss) & (loss < LARGEST_LOSS)
            values = _scaled(loss[kept], SCALES[scale])
            size = int(kept.sum())
            parts.append((values, costs[kept], numbers[kept], np.full(size, smoothing), np.full(size, scale)))
    values, costs, mean, smoothings, scales = map(np.concatenate, zip(*parts, strict=True))
    return Block(feed, program, order, recipes, values, costs, mean, smoothings, scales)


def _scaled(loss: Floats, scale: str) -> Floats:
    return np.exp(loss) if scale == "perplexity" else loss / np.log(2) if scale == "bits" else loss


class Means:
    """The means of one feed: computed once where programs differ only in name.

    Args:
        rows: the sums of its rows.
    """

    def __init__(self, rows: RowSums) -> None:
        self._rows = rows
        self._without_zero = bool((rows.tokens > 0).all())
        self._known: dict[tuple[Recipe, Mean], tuple[float, float]] = {}

    def of(self, program: Program, recipe: Recipe) -> tuple[float, float]:
        """Return the mean loss, and the mean of −log p over the vocabulary; NaN where there is none."""
        if self._without_zero and recipe.denominator is Denominator.TOKENS_OR_ONE:
            recipe = replace(recipe, denominator=Denominator.TOKENS, drops_nonfinite=True)
        key = (recipe, program.mean)
        if key not in self._known:
            self._known[key] = self._mean(program.mean, recipe)
        return self._known[key]

    def _mean(self, mean: Mean, recipe: Recipe) -> tuple[float, float]:
        rows = self._rows
        counts = rows.labels if recipe.denominator is Denominator.LABELS else rows.tokens
        if mean is Mean.ROW_PERPLEXITIES:
            scored = counts > 0
            losses = rows.loss_nats[scored] / counts[scored]
            return float(np.log(np.exp(np.minimum(losses, LARGEST_LOSS)).mean())), math.nan
        if mean is Mean.TOKENS:
            return float(rows.loss_nats.sum() / counts.sum()), float(rows.uniform_loss_nats.sum() / counts.sum())
        both = (rows.loss_nats, rows.uniform_loss_nats)
        if mean is Mean.BATCHES:
            first, second = (float(batch_values(sums, counts, recipe)[1].mean()) for sums in both)
        else:
            first, second = (mean_of_rows(sums, counts, recipe) for sums in both)
        return first, second


def _recipes(program: Program, rows: int, cost: int, evidence: LogEvidence) -> Iterator[tuple[Recipe, int]]:
    """Yield sizes of batches and numbers of ranks, with what they cost."""
    if program.mean in (Mean.TOKENS, Mean.ROW_PERPLEXITIES):
        yield Recipe(rows, program.denominator), 0
        return
    several = cost <= MANY_RANKS_COST and program.mean is Mean.ROWS and rows > 1
    for ranks in RANKS if several else RANKS[:1]:
        for sharing in (Ranks.OWN,) if program.cuts or ranks == 1 else (Ranks.AVERAGED, Ranks.OWN):
            for size in sizes_of(rows):
                more = batch_cost(size, rows) + ranks_cost(program, ranks, sharing)
                more += batches_cost(-(-rows // (size * ranks)), evidence)
                if cost + more <= MOST_COST:
                    shared = Ranks.AVERAGED if ranks == 1 else sharing
                    yield Recipe(size, program.denominator, ranks, shared, 0.0, program.drops_nonfinite), more


def _recipe_words(program: Program, recipe: Recipe, scale: str, rows: int) -> list[str]:
    """Return batches, ranks, smoothing and unit in words."""
    told = [_size_words(recipe.rows_per_batch, rows)] if program.mean in (Mean.ROWS, Mean.BATCHES) else []
    if recipe.ranks > 1:
        own = recipe.sharing is Ranks.OWN and not program.cuts
        shared = ", each with its own mean" if own else ""
        told.append(f"{recipe.ranks} processes{shared}")
    if recipe.smoothing:
        told.append(f"label smoothing {recipe.smoothing:g}")
    if scale == "perplexity" and program.mean is not Mean.ROW_PERPLEXITIES:
        told.append("exp of it (perplexity)")
    elif scale == "bits":
        told.append("in bits")
    return told


def _size_words(size: int, rows: int) -> str:
    if size < rows:
        return f"batches of {format_count(size)}"
    if rows <= USUAL_BATCH:
        return f"batches of {USUAL_BATCH}" if rows == USUAL_BATCH else f"one batch of all {rows} rows"
    return f"one batch of all {format_count(rows)} rows"
