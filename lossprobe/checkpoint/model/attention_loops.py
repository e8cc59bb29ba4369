"""Compiled CPU loops for causal attention, a block of queries and a block of keys at a time.

Scores and probabilities of a block stay in the fast cache, in float32. Their columns are queries: so the largest score
of each query, its sums and the products are all made by vector instructions without rearranging anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import COLUMNS, ROWS, add_products, kept, numba
from lossprobe.exponential import FUSED, exponential

QUERIES = 128  # a multiple of COLUMNS
KEYS = 64  # a multiple of ROWS
MASKED = np.float32(-np.inf)


def _compiled(function: Any, *, parallel: bool = False) -> Any:
    return kept(numba.njit(nogil=True, parallel=parallel, fastmath=FUSED, error_model="numpy")(function))


@_compiled
def _multiply(a: Any, b: Any, out: Any) -> None:
    """Add a [R, K] · b [K, QUERIES] to `out`; R is a multiple of `ROWS`."""
    for column in range(0, QUERIES, COLUMNS):
        for row in range(0, len(a), ROWS):
            add_products(a, b, out, row, column)


@_compiled
def _mask(scores: Any, key: int, query: int) -> None:
    """Mask the scores of keys that come after their query, given the numbers of the first key and query."""
    for j in range(KEYS):
        for i in range(min(QUERIES, max(0, key + j - query))):
            scores[j, i] = MASKED


@_compiled
def _weigh(scores: Any, largest: Any, total: Any, sums: Any) -> None:
    """Turn scores [KEYS, QUERIES] into weights exp(score − largest score of the query so far).

    Args:
        scores: overwritten by the weights.
        largest: [QUERIES], the largest scores; brought up to date.
        total: [QUERIES], sums of the weights; brought up to date.
        sums: [D, QUERIES], sums of values by weight; multiplied by what changes as the largest score does.
    """
    factor = largest.copy()
    for j in range(KEYS):
        for i in range(QUERIES):
            largest[i] = scores[j, i] if scores[j, i] > largest[i] else largest[i]
    for i in range(QUERIES):
        factor[i] = exponential(factor[i] - largest[i])
        total[i] *= factor[i]
    for d in range(len(sums)):
        for i in range(QUERIES):
            sums[d, i] *= factor[i]
    for j in range(KEYS):
        for i in range(QUERIES):
            weight = exponential(scores[j, i] - largest[i])
            scores[j, i] = weight
            total[i] += weight


@_compiled
def _attend(query: Any, key: Any, value: Any, scale: Any, first: int, out: Any) -> None:
    """Fill `out` for up to `QUERIES` queries of one head, from number `first` on; arguments as of `attend`, [T, D]."""
    count = min(QUERIES, len(query) - first)
    queries = np.zeros((query.shape[1], QUERIES), np.float32)
    for i in range(count):
        for d in range(query.shape[1]):
            queries[d, i] = query[first + i, d] * scale
    largest, total = np.full(QUERIES, MASKED), np.zeros(QUERIES, np.float32)
    sums = np.zeros((value.shape[1], QUERIES), np.float32)
    keys, values = np.zeros((KEYS, key.shape[1]), np.float32), np.zeros((value.shape[1], KEYS), np.float32)
    scores = np.empty((KEYS, QUERIES), np.float32)
    for start in range(0, first + count, KEYS):
        here = min(KEYS, len(key) - start)
        keys[:here] = key[start : start + here]
        for j in range(here):  # what lies behind them is finite, and its weights are 0
            for d in range(value.shape[1]):  # not a column at a time, whose entries are far apart
                values[d, j] = value[start + j, d]
        scores[:] = np.float32(0.0)
        _multiply(keys, queries, scores)
        if start + KEYS > first:
            _mask(scores, start, first)
        _weigh(scores, largest, total, sums)
        _multiply(values, scores, sums)
    for i in range(count):
        for d in range(value.shape[1]):
            out[first + i, d] = sums[d, i] / total[i]


@kept
@numba.njit(nogil=True, parallel=True, fastmath=FUSED, error_model="numpy")
def attend(query: Any, key: Any, value: Any, scale: Any, out: Any) -> None:
    """Fill `out` with Σ p · value over the keys up to each query, p = softmax(scale · query · key).

    Args:
        query: float32 [B, T, H, D].
        key: float32 [B, T, G, D]; each of the G heads serves H / G heads of the queries, one after the other.
        value: float32 [B, T, G, E], E a multiple of `ROWS`.
        scale: factor of the scores, a float32.
        out: float32 [B, T, H, E].
    """
    batch, length, heads, _ = query.shape
    blocks, shared = -(-length // QUERIES), heads // key.shape[2]
    for at in numba.prange(batch * heads * blocks):
        row, head, first = at // blocks // heads, at // blocks % heads, at % blocks * QUERIES
        group = head // shared
        _attend(query[row, :, head], key[row, :, group], value[row, :, group], scale, first, out[row, :, head])
