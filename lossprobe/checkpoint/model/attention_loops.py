"""Compiled CPU loops for causal attention, a block of queries and a block of keys at a time.

Scores and probabilities of a block stay in the fast cache, in float32. Their columns are queries: so the largest score
of each query, its sums and the products are all made by vector instructions without rearranging anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lossprobe.compiler import compiled_loop, numba
from lossprobe.exponential import FUSED, exponential
from lossprobe.instructions import COLUMNS, ROWS, add_products, put_products

QUERIES = 128  # a multiple of STRIP
STRIP = 64  # queries that are weighed together; a multiple of COLUMNS
KEYS = 64  # a multiple of ROWS
MASKED = np.float32(-np.inf)


_compiled = compiled_loop(fastmath=FUSED)


@_compiled
def _score(keys: Any, queries: Any, first: Any, scores: Any) -> None:
    """Fill scores [KEYS, QUERIES] with keys [KEYS, D] · queries [D, QUERIES], from column `first` on."""
    for column in range(first, QUERIES, COLUMNS):
        for row in range(0, KEYS, ROWS):
            put_products(keys, queries, scores, row, column)


@_compiled
def _add_values(values: Any, weights: Any, first: Any, sums: Any) -> None:
    """Add values [KEYS, E], transposed, · weights [KEYS, QUERIES] to sums [E, QUERIES], from column `first` on."""
    for column in range(first, QUERIES, COLUMNS):
        for row in range(0, len(sums), ROWS):
            add_products(values.T, weights, sums, row, column)


@_compiled
def _mask(scores: Any, key: int, query: int) -> None:
    """Mask the scores of keys that come after their query, given the numbers of the first key and query."""
    for j in range(KEYS):
        for i in range(min(QUERIES, max(0, key + j - query))):
            scores[j, i] = MASKED


@_compiled
def _weigh(scores: Any, column: Any, largest: Any, total: Any, sums: Any) -> None:
    """Turn `STRIP` columns of scores into weights exp(score − largest score of the query so far).

    Args:
        scores: [KEYS, QUERIES], overwritten by the weights.
        column: the first of the columns.
        largest: [QUERIES], the largest scores; brought up to date.
        total: [QUERIES], sums of the weights; brought up to date.
        sums: [E, QUERIES], sums of values by weight; multiplied by what changes as the largest score does.
    """
    end = column + STRIP
    factor, before, tops = np.empty(STRIP, np.float32), largest[column:end].copy(), largest[column:end]
    for j in range(KEYS):
        row = scores[j, column:end]  # slices, since numba looks for negative numbers in each sum of two
        for i in range(STRIP):
            tops[i] = row[i] if row[i] > tops[i] else tops[i]
    totals = total[column:end]
    for i in range(STRIP):
        factor[i] = exponential(before[i] - tops[i])
        totals[i] *= factor[i]
    for d in range(len(sums)):
        row = sums[d, column:end]
        for i in range(STRIP):
            row[i] *= factor[i]
    for j in range(KEYS):
        row = scores[j, column:end]
        for i in range(STRIP):
            row[i] = exponential(row[i] - tops[i])
            totals[i] += row[i]


@_compiled
def _copy(rows: Any, part: Any, row: Any, start: Any, head: Any, out: Any) -> Any:
    """Copy what one head has of [B, T, P, H, D], from number `start` of T on, as many as there are and `out` has."""
    for j in range(min(len(out), rows.shape[1] - start)):
        for d in range(rows.shape[4]):
            out[j, d] = rows[row, start + j, part, head, d]


@_compiled
def _attend(rows: Any, parts: Any, scale: Any, at: Any, out: Any) -> None:
    """Fill `out` for a block of queries of one head: number `at` of all blocks; other arguments as of `attend`."""
    query, key, value = rows
    blocks, heads, width, end = -(-query.shape[1] // QUERIES), query.shape[3], query.shape[4], value.shape[4]
    row, head, first = at // blocks // heads, at // blocks % heads, at % blocks * QUERIES
    count, group = min(QUERIES, query.shape[1] - first), head * key.shape[3] // heads
    queries, part = np.zeros((width, QUERIES), np.float32), parts[0]
    for i in range(count):
        for d in range(width):
            queries[d, i] = query[row, first + i, part, head, d] * scale
    largest, total = np.full(QUERIES, MASKED), np.zeros(QUERIES, np.float32)
    sums = np.zeros((end, QUERIES), np.float32)
    # What lies in them behind the last key is finite, and its weights are 0.
    keys, values = np.zeros((KEYS, width), np.float32), np.zeros((KEYS, end), np.float32)
    scores = np.empty((KEYS, QUERIES), np.float32)
    for start in range(0, first + count, KEYS):
        _copy(key, parts[1], row, start, group, keys)
        _copy(value, parts[2], row, start, group, values)
        seeing = max(0, start - first) // STRIP * STRIP
        _score(keys, queries, seeing, scores)
        if start + KEYS > first:
            _mask(scores, start, first)
        for column in range(seeing, QUERIES, STRIP):
            _weigh(scores, column, largest, total, sums)
        _add_values(values, scores, seeing, sums)
    for i in range(count):
        for d in range(end):
            out[row, first + i, head, d] = sums[d, i] / total[i]


@compiled_loop(parallel=True, fastmath=FUSED)
def attend(rows: Any, parts: Any, scale: Any, out: Any) -> None:
    """Fill `out` with Σ p · value over the keys up to each query, p = softmax(scale · query · key).

    Args:
        rows: queries, keys and values, each float32 [B, T, P, H, D], of which one of the P parts is meant: models that
            compute the three together have them side by side. Each of the G heads of keys and values serves H / G
            heads of the queries, one after the other; D of the values is a multiple of `ROWS`.
        parts: the numbers of the three parts.
        scale: factor of the scores, a float32.
        out: float32 [B, T, H, D].
    """
    for at in numba.prange(out.shape[0] * out.shape[2] * -(-out.shape[1] // QUERIES)):
        _attend(rows, parts, scale, at, out)
