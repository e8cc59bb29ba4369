"""Which recipes agree with a logged number, and how many of those tried would agree with it by chance.

Thousands of recipes lie close together, so that some agree with a number of few digits whatever its cause. How many is
expected from how densely their values lie near the number: with n different values within ±r of it, a band of width w
holds about n·w/2r of them by chance (the nearest-neighbour estimate of a density, Loftsgaarden and Quesenberry 1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.logged.recipe import Floats
from lossprobe.analysis.reconcile.candidates import Candidates
from lossprobe.analysis.reconcile.logged_value import LoggedValue

SAME = 1e-10  # values closer than this, in parts, are the same number by two names


@dataclass(frozen=True)
class Match:
    """One value, with the best known recipe that gives it.

    Attributes:
        number: number of the value in `Values`.
        index: number of the recipe.
        value: what it gives.
        cost: how far it is from a program's defaults.
        others: numbers of recipes of other programs that give the same number, the best known first.
    """

    number: int
    index: int
    value: float
    cost: int
    others: tuple[int, ...]


@dataclass(frozen=True)
class Values:
    """The different values that recipes give, each with its best known recipe.

    Attributes:
        values: float64 [N], ascending.
        best: int64 [N], number of the recipe.
        costs: int64 [N], its cost.
        group: int64 [M], number of the value of every recipe.
    """

    values: Floats
    best: npt.NDArray[np.int64]
    costs: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]

    def match(self, number: int, candidates: Candidates) -> Match:
        """Return one value with the recipes that give it."""
        first = int(self.best[number])
        seen = {candidates.block_of(first)[0].program.words}
        others = []
        members = np.flatnonzero(self.group == number)
        for index in members[np.lexsort((candidates.orders[members], candidates.costs[members]))].tolist():
            words = candidates.block_of(index)[0].program.words
            if words not in seen and candidates.costs[index] <= self.costs[number] + 1:
                seen.add(words)
                others.append(index)
        return Match(number, first, float(self.values[number]), int(self.costs[number]), tuple(others))


def different_values(candidates: Candidates) -> Values:
    """Return the different values of recipes."""
    order = np.lexsort((candidates.orders, candidates.costs, candidates.values))
    ordered = candidates.values[order]
    if not len(ordered):
        return Values(ordered, order, candidates.costs, order)
    begins = np.concatenate([[True], np.diff(ordered) > SAME * np.abs(ordered[1:])])
    numbers = np.cumsum(begins) - 1
    group = np.empty(len(order), np.int64)
    group[order] = numbers
    ranked = np.lexsort((candidates.orders, candidates.costs, group))
    first = np.concatenate([[True], np.diff(group[ranked]) > 0])
    best = ranked[first]
    return Values(candidates.values[best], best, candidates.costs[best], group)


def expected_by_chance(values: Floats, logged: LoggedValue) -> float:
    """Return how many of some different values would lie in the band of a logged number by chance.

    Args:
        values: the values, without the one whose agreement is judged.
        logged: the number and its band.

    >>> band = LoggedValue("5.0", 5.0, 4.95, 5.05)
    >>> round(expected_by_chance(np.arange(0.005, 10, 0.01), band), 1)  # 100 a unit
    10.0
    """
    if not len(values):
        return 0.0
    distances = np.sort(np.abs(values - logged.value))
    near = min(len(distances), max(10, math.isqrt(len(distances))))
    reach = max(float(distances[near - 1]), logged.width / 2)
    inside = int(np.searchsorted(distances, reach, side="right"))
    return inside * min(1.0, logged.width / (2 * reach))
