"""Finds losses that a log has in bits, by their ratio to another loss of the same log, and converts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from lossprobe.logs.log import LOSS, PERPLEXITY, Series
from lossprobe.units import NATS_PER_BIT, plural, visible

FEWEST_COMMON = 3  # steps
MEDIAN_WITHIN = 0.03  # of 1 / ln 2
EACH_WITHIN = 0.1


def in_nats(series: Sequence[Series]) -> tuple[tuple[Series, ...], tuple[str, ...]]:
    """Return the series of a log with all losses in nats, and a line about each loss that was in bits.

    Two losses of one run are nearly equal at common steps early in training. Where one is 1.4427 (1 / ln 2) times the
    other at all of them, it is in bits: nanoGPT's 6.1551 against 4.2874 is 1.4356 times as much. So it is where it is
    1.4427 times the logarithm of a perplexity: fairseq's 8.3 with a perplexity of 315.
    """
    losses = [each for each in series if each.name == LOSS]
    logarithms = [replace(each, values=_log(each.values)) for each in series if each.name == PERPLEXITY]
    in_bits: dict[int, str] = {}
    for larger, smaller in [*permutations(losses, 2), *product(losses, logarithms)]:
        if smaller.name == PERPLEXITY and smaller.split != larger.split:
            continue
        common = _ratio(larger, smaller)
        if common is not None:
            ratio, steps = common
            in_bits[id(larger)] = (
                f"{visible(larger.key, 60)} is in bits, as it is {ratio:.3f} times {_shown(smaller)} at "
                f"{plural(steps, 'common step')} (1 / ln 2 = 1.443): its values were multiplied by ln 2"
            )
    converted = (
        replace(each, values=each.values * NATS_PER_BIT) if id(each) in in_bits else each for each in series
    )  # fmt: skip
    return tuple(converted), tuple(in_bits.values())


def _ratio(larger: Series, smaller: Series) -> tuple[float, int] | None:
    """Return the median ratio of two losses and the number of common steps, if it says bits at each of them."""
    fewer, more = sorted((larger, smaller), key=lambda each: len(each.steps))
    places = np.minimum(np.searchsorted(more.steps, fewer.steps), len(more.steps) - 1)
    common = more.steps[places] == fewer.steps
    ours, theirs = fewer.values[common], more.values[places[common]]
    with np.errstate(all="ignore"):
        ratios = ours / theirs if fewer is larger else theirs / ours
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < FEWEST_COMMON:
        return None
    median = float(np.median(ratios))
    off = np.abs(ratios * NATS_PER_BIT - 1)
    return (median, len(ratios)) if abs(median * NATS_PER_BIT - 1) < MEDIAN_WITHIN and off.max() < EACH_WITHIN else None


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.log(values)


def _shown(series: Series) -> str:
    key = visible(series.key, 60)
    return f"the logarithm of {key}" if series.name == PERPLEXITY else key
