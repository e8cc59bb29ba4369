"""Enumerates the recipes that could have made a number, with the value and the cost of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lossprobe.analysis.logged.grouped import SEED
from lossprobe.analysis.logged.recipe import Floats, Integers, Ranks, Recipe
from lossprobe.analysis.reconcile.feed import Feed
from lossprobe.analysis.reconcile.logged_value import LogEvidence
from lossprobe.analysis.reconcile.means import LARGEST_LOSS, Means, Way
from lossprobe.analysis.reconcile.programs import (
    GROUPED_COST,
    USUAL_BATCH,
    Mean,
    Program,
    balancing_cost,
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
_Ways = list[tuple[Way, int]]


@dataclass(frozen=True)
class Block:
    """All recipes of one program on one feed; arrays are [N].

    Attributes:
        feed: the text as it was fed.
        program: the program.
        order: number of the program in the order of `programs_of`; smaller is better known.
        ways: batches and ranks of its recipes, the order of their rows, and whether a MoE loss is added.
        values: float64, the number that each recipe gives.
        costs: int64, how far it is from the program's defaults.
        way: int64, its number in `ways`.
        smoothing: float64, its label smoothing.
        scale: int64, the unit of its number, an index into `SCALES`.
    """

    feed: Feed
    program: Program
    order: int
    ways: Sequence[Way]
    values: Floats
    costs: Integers
    way: Integers
    smoothing: Floats
    scale: Integers

    def words(self, index: int) -> str:
        """Return a recipe in words."""
        way = self.ways[self.way[index]]
        smoothed = replace(way, recipe=replace(way.recipe, smoothing=float(self.smoothing[index])))
        told = _way_words(self.program, smoothed, SCALES[self.scale[index]], len(self.feed.rows))
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

    def __add__(self, more: Candidates) -> Candidates:
        """Return these and others."""
        return Candidates((*self.blocks, *more.blocks))

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
    known: dict[tuple[Program, int, int, bool, bool], _Ways] = {}  # those of feeds with as many rows are the same
    for feed in feeds:
        means = Means(feed)
        for order, program in enumerate(programs_of(feed, before_shift=before_shift)):
            cost = program.cost + feed_cost(program, feed) + writer_cost(program, evidence)
            if cost <= MOST_COST and len(feed.rows) and feed.rows.tokens.any():
                key = (program, len(feed.rows), cost, feed.lengths is None, feed.balancing is None)
                if key not in known:
                    known[key] = list(_ways(program, feed, cost, evidence))
                blocks.append(_block(feed, program, order, cost, means, known[key]))
    return Candidates(tuple(blocks))


def sizes_of(rows: int) -> list[int]:
    """Return the sizes of batches that are tried for a number of rows."""
    powers = [1 << power for power in range(LARGEST_SIZE.bit_length())]
    return sorted({min(size, rows) for size in (*range(1, EVERY_SIZE + 1), *powers, rows)})


def _block(feed: Feed, program: Program, order: int, cost: int, means: Means, found: _Ways) -> Block:
    """Return the recipes of a program on a feed: its means, each with every smoothing and unit."""
    ways = [way for way, _ in found]
    plain, uniform = np.array([means.of(program, way) for way in ways]).reshape(-1, 2).T
    more = np.array([extra for _, extra in found], np.int64)
    routed = None if program.mean in (Mean.TOKENS, Mean.ROW_PERPLEXITIES) else feed.balancing
    balancing = np.array([balancing_cost(program, routed, adds=way.balanced) for way in ways], np.int64)
    numbers = np.arange(len(found))
    parts = []
    for smoothing in SMOOTHINGS:
        if program.smooths is not None and program.smooths is not bool(smoothing):
            continue
        for scale, extra in enumerate(SCALE_COSTS):
            perplexities = program.mean is Mean.ROW_PERPLEXITIES
            if perplexities and (SCALES[scale] != "perplexity" or smoothing):
                continue
            loss = (1 - smoothing) * plain + smoothing * uniform if smoothing else plain
            costs = cost + more + extra + (smoothing_cost(smoothing) if smoothing else balancing)
            kept = (costs <= MOST_COST) & np.isfinite(loss) & (loss < LARGEST_LOSS)
            values = _scaled(loss[kept], SCALES[scale])
            size = int(kept.sum())
            parts.append((values, costs[kept], numbers[kept], np.full(size, smoothing), np.full(size, scale)))
    values, costs, way, smoothings, scales = map(np.concatenate, zip(*parts, strict=True))
    return Block(feed, program, order, ways, values, costs, way, smoothings, scales)


def _scaled(loss: Floats, scale: str) -> Floats:
    return np.exp(loss) if scale == "perplexity" else loss / np.log(2) if scale == "bits" else loss


def _ways(program: Program, feed: Feed, cost: int, evidence: LogEvidence) -> Iterator[tuple[Way, int]]:
    """Yield batches and ranks, each in both orders and without or with a MoE loss, with what it costs."""
    batched = program.mean in (Mean.ROWS, Mean.BATCHES)
    balanced = (False, True) if batched and feed.balancing is not None else (False,)
    for recipe, recipe_cost in _recipes(program, len(feed.rows), cost, evidence):
        size, rows = recipe.rows_per_batch, len(feed.rows)
        several = program.mean is Mean.ROWS and feed.lengths is not None and size < rows
        several = several and batch_cost(size, rows) <= 1  # it doubles what is tried: only with sizes that are usual
        for grouped in (False, True) if several else (False,):
            for adds in balanced:
                more = recipe_cost + (GROUPED_COST if grouped else 0)
                if cost + more <= MOST_COST:
                    yield Way(recipe, grouped, adds), more


def _recipes(program: Program, rows: int, cost: int, evidence: LogEvidence) -> Iterator[tuple[Recipe, int]]:
    """Yield sizes of batches and numbers of ranks, with what they cost."""
    if program.mean in (Mean.TOKENS, Mean.ROW_PERPLEXITIES):
        yield Recipe(rows, program.denominator), 0
        return
    several = cost <= MANY_RANKS_COST and program.mean is Mean.ROWS and rows > 1
    for ranks in RANKS if several else RANKS[:1]:
        for sharing in (Ranks.OWN,) if program.cuts or ranks == 1 else (program.sharing, Ranks.OWN):
            for size in sizes_of(rows):
                more = batch_cost(size, rows) + ranks_cost(program, ranks, sharing)
                more += batches_cost(-(-rows // (size * ranks)), evidence)
                if cost + more <= MOST_COST:
                    shared = Ranks.AVERAGED if ranks == 1 else sharing
                    yield Recipe(size, program.denominator, ranks, shared, 0.0, program.drops_nonfinite), more


def _way_words(program: Program, way: Way, scale: str, rows: int) -> list[str]:
    """Return batches, order, ranks, smoothing, MoE loss and unit in words."""
    recipe = way.recipe
    told = [_size_words(recipe.rows_per_batch, rows)] if program.mean in (Mean.ROWS, Mean.BATCHES) else []
    if way.grouped:
        told.append(f"rows grouped by length, seed {SEED}")
    if recipe.ranks > 1:
        own = recipe.sharing is Ranks.OWN and not program.cuts
        shared = ", each with its own mean" if own else ""
        told.append(f"{recipe.ranks} processes{shared}")
    if recipe.smoothing:
        times = f", times {recipe.ranks} processes" if recipe.sharing is Ranks.MULTIPLIED and recipe.ranks > 1 else ""
        told.append(f"label smoothing {recipe.smoothing:g}{times}")
    if way.balanced:
        told.append("with the load-balancing loss")
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
