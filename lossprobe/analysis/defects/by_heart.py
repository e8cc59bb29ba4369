"""Stretches that the model foresees almost surely: text that it was trained on, more than once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.token_blocks import DocumentTokens

NAME = "known-by-heart"
KNOWN_NATS = 0.1  # mean loss of known tokens, as of the documents of `gap`: a probability of 90 % a token
FEWEST_TOKENS = 32  # of a stretch
FEWEST_BYTES = 120  # likewise: about 20 words
LEAST_DIFFERENT = 1 / 3  # of the tokens of a stretch: else it repeats itself
EDGE_NATS = 1.0  # tokens at the ends of a stretch with a higher loss do not belong to it


def find_by_heart(page: TextPage, tokens: DocumentTokens) -> Iterator[Found]:
    """Yield the stretches that the model knows though nothing before them in the document says what comes."""
    scored = np.flatnonzero(np.isfinite(tokens.loss_nats) & ~_in_template(page, tokens))
    losses = tokens.loss_nats[scored]
    if len(losses) < FEWEST_TOKENS:
        return
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    low = np.flatnonzero(sums[FEWEST_TOKENS:] - sums[:-FEWEST_TOKENS] < KNOWN_NATS * FEWEST_TOKENS)
    if not len(low):
        return
    breaks = np.flatnonzero(np.diff(low) > FEWEST_TOKENS)
    firsts, lasts = low[np.concatenate([[0], breaks + 1])], low[np.append(breaks, len(low) - 1)] + FEWEST_TOKENS - 1
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        known = first + np.flatnonzero(losses[first : last + 1] < EDGE_NATS)
        inside = scored[known[0] : known[-1] + 1]
        start, stop = int(tokens.starts[inside[0]]), int(tokens.stops[inside[-1]])
        if stop - start >= FEWEST_BYTES and not _said_before(page.data, start, stop, tokens.ids[inside]):
            yield Found(NAME, start, stop, "loss near 0")


def _in_template(page: TextPage, tokens: DocumentTokens) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    inside = np.zeros(len(tokens.starts), bool)
    for start, stop in page.template:
        inside |= (tokens.starts >= start) & (tokens.stops <= stop)
    return inside


def _said_before(data: bytes, start: int, stop: int, ids: np.ndarray[tuple[int], np.dtype[np.int32]]) -> bool:
    """Return whether a stretch repeats itself, or its middle stands earlier in the document, so that it is foreseen."""
    if len(np.unique(ids)) < LEAST_DIFFERENT * min(len(ids), 2 * FEWEST_TOKENS):
        return True
    third = (stop - start) // 3
    return data.find(data[start + third : stop - third], 0, start + third) >= 0
