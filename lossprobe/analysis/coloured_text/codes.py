"""Losses, entropies, ranks and differences in one byte each, on absolute scales that are the same for every run.

A colour or a number of the page then means the same in every page, and one outlier stretches no scale.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]

SCORED_CODES = 240  # codes 0 to 239 are numbers; 240 + i is the i-th reason why there is none
LOSS_UNIT_NATS, MOST_LOSS_NATS = 0.5, 100.0
LOSS_RATE = math.log1p(MOST_LOSS_NATS / LOSS_UNIT_NATS) / (SCORED_CODES - 1)
EXACT_RANKS, MOST_RANK = 64, 1 << 22  # ranks below the first are their own codes
RANK_RATE = math.log(MOST_RANK / EXACT_RANKS) / (255 - EXACT_RANKS)
DIFFERENCE_UNIT_NATS, MOST_DIFFERENCE_NATS = 0.05, 100.0
NO_DIFFERENCE, ZERO_DIFFERENCE = 255, 127
DIFFERENCE_RATE = math.log1p(MOST_DIFFERENCE_NATS / DIFFERENCE_UNIT_NATS) / ZERO_DIFFERENCE


def loss_codes(nats: Numbers) -> Bytes:
    """Return losses or entropies as codes 0 to 239, uint8 [N]; the page shows x within 0.0112 · (x + 0.5) nats.

    Code k stands for 0.5 · (exp(0.02219 k) − 1) nats, so 0.011 nats lie between the codes of small losses, and 2.2 %
    between those of large ones. What is above 100 nats gets the code of 100 nats; a loss below 0 by rounding that of 0.

    >>> codes = loss_codes(np.array([0.0, 1.0, 10.0, 1e6]))
    >>> codes.tolist(), decoded_losses(codes).round(3).tolist()
    ([0, 50, 137, 239], [0.0, 1.016, 9.952, 100.0])
    """
    steps = np.log1p(np.clip(nats.astype(np.float64), 0.0, MOST_LOSS_NATS) / LOSS_UNIT_NATS) / LOSS_RATE
    return np.rint(steps).astype(np.uint8)


def decoded_losses(codes: Bytes) -> npt.NDArray[np.float64]:
    """Return the nats that `loss_codes` stand for, float64 [N]."""
    return LOSS_UNIT_NATS * np.expm1(LOSS_RATE * codes.astype(np.float64))


def rank_codes(ranks: Numbers) -> Bytes:
    """Return ranks as codes, uint8 [N]: those below 64 exactly, others within 3.1 %, up to 4,194,304.

    >>> codes = rank_codes(np.array([0, 63, 64, 50_000]))
    >>> codes.tolist(), decoded_ranks(codes).tolist()
    ([0, 63, 64, 179], [0, 63, 64, 50834])
    """
    clipped = np.clip(ranks.astype(np.float64), 0, MOST_RANK)
    large = EXACT_RANKS + np.rint(np.log(np.maximum(clipped, EXACT_RANKS) / EXACT_RANKS) / RANK_RATE)
    return np.where(clipped < EXACT_RANKS, clipped, large).astype(np.uint8)


def decoded_ranks(codes: Bytes) -> npt.NDArray[np.int64]:
    """Return the ranks that `rank_codes` stand for, int64 [N]."""
    large = np.rint(EXACT_RANKS * np.exp(RANK_RATE * (codes.astype(np.float64) - EXACT_RANKS)))
    return np.where(codes < EXACT_RANKS, codes, large).astype(np.int64)


def difference_codes(nats: Numbers) -> Bytes:
    """Return differences of losses as codes, uint8 [N]: 127 is none, d lies within 0.0304 · (|d| + 0.05) nats.

    NaN, where one of the runs has no loss, gets code 255; what is beyond ±100 nats that of ±100.

    >>> codes = difference_codes(np.array([-2.0, 0.0, 0.01, np.nan]))
    >>> codes.tolist(), decoded_differences(codes).round(4).tolist()
    ([65, 127, 130, 255], [-1.9946, 0.0, 0.0098, nan])
    """
    known = np.nan_to_num(nats.astype(np.float64), nan=0.0)
    size = np.minimum(np.abs(known), MOST_DIFFERENCE_NATS)
    steps = np.sign(known) * np.rint(np.log1p(size / DIFFERENCE_UNIT_NATS) / DIFFERENCE_RATE)
    return np.where(np.isnan(nats), NO_DIFFERENCE, ZERO_DIFFERENCE + steps).astype(np.uint8)


def decoded_differences(codes: Bytes) -> npt.NDArray[np.float64]:
    """Return the nats that `difference_codes` stand for, float64 [N]; NaN for code 255."""
    steps = codes.astype(np.float64) - ZERO_DIFFERENCE
    size = DIFFERENCE_UNIT_NATS * np.expm1(DIFFERENCE_RATE * np.abs(steps))
    return np.where(codes == NO_DIFFERENCE, np.nan, np.sign(steps) * size)


def scales() -> dict[str, float | int]:
    """Return the numbers that the page needs to read the codes."""
    return {
        "scored_codes": SCORED_CODES,
        "loss_unit": LOSS_UNIT_NATS,
        "loss_rate": LOSS_RATE,
        "exact_ranks": EXACT_RANKS,
        "rank_rate": RANK_RATE,
        "difference_unit": DIFFERENCE_UNIT_NATS,
        "difference_rate": DIFFERENCE_RATE,
        "zero_difference": ZERO_DIFFERENCE,
        "no_difference": NO_DIFFERENCE,
    }
