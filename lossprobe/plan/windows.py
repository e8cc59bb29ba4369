"""Windows: which tokens a model sees at once, and which of them are scored."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.errors import UsageError
from lossprobe.plan.layout import Layout as Layout

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document that go through the model together.

    The inputs are tokens `start` to `stop - 2`. The targets are tokens `first_scored` to `stop - 1`; target t has
    t − start tokens of context.
    """

    start: int
    stop: int
    first_scored: int


def window_of(
    token: Integers, context: int, stride: int, layout: Layout = Layout.ROLLING, tokens: int = 0
) -> tuple[Integers, Integers]:
    """Return the window to which each token belongs as a target, and where that window starts.

    With the layout `ROLLING` every token but the document's first is a target once, in text order. If the stride equals
    the context, windows share one token: the last target of a window is the first input of the next, whose first target
    has 1 token of context. With a smaller stride S, every target after the first window has at least `context` − S + 1
    tokens of context.

    Args:
        token: int64 [N], indices of tokens in one document; token 0 belongs to the first window.
        context: most input tokens of a window; it has up to `context` + 1 tokens, of which the last is only a target.
        stride: new tokens scored by each rolling window after the first.
        layout: how windows are laid over the document.
        tokens: number of tokens of the document; needed only for `LAST_FULL` and `LAST`.

    Returns:
        int64 [N], number of each token's window, from 0; int64 [N], index of that window's first token.

    >>> number, start = window_of(np.arange(7), context=4, stride=2)
    >>> number.tolist(), start.tolist()
    ([0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 2, 2])
    >>> window_of(np.arange(7), 4, 4, Layout.LAST_FULL, tokens=7)[1].tolist()
    [0, 0, 0, 0, 0, 2, 2]
    >>> window_of(np.arange(7), 4, 4, Layout.DISJOINT)[1].tolist()
    [0, 0, 0, 0, 0, 5, 5]
    >>> window_of(np.arange(7), 4, 4, Layout.LAST, tokens=7)[1].tolist()
    [0, 0, 2, 2, 2, 2, 2]
    """
    if layout in (Layout.ROLLING, Layout.LAST_FULL):
        number = np.maximum(token - context + stride - 1, 0) // stride
        start = number * stride
        if layout is Layout.LAST_FULL:
            start = np.minimum(start, max(tokens - 1 - context, 0))
        return number, start
    number = token // (context + 1)
    start = number * (context + 1)
    if layout is Layout.LAST:
        last = max(tokens - 1 - context, 0)
        return np.where(token >= last, -(-last // (context + 1)), number), np.where(token >= last, last, start)
    return number, start


def window_end(
    at_least: int, context: int, stride: int, layout: Layout = Layout.ROLLING, tokens: int = sys.maxsize
) -> int:
    """Return the smallest number of tokens ≥ `at_least` after which a window ends, if the document were endless.

    With the layout `LAST`, windows end where the last one begins too, which depends on the number of `tokens`.

    >>> [window_end(size, context=4, stride=2) for size in (1, 5, 6, 7, 8)]
    [5, 5, 7, 7, 9]
    >>> window_end(6, 4, 4, Layout.DISJOINT)
    10
    >>> [window_end(size, 4, 4, Layout.LAST, tokens=12) for size in (1, 5, 6, 7, 8)]
    [5, 5, 7, 7, 12]
    """
    if layout in (Layout.ROLLING, Layout.LAST_FULL):
        return context + 1 + -(-max(0, at_least - context - 1) // stride) * stride
    end = -(-at_least // (context + 1)) * (context + 1)
    if layout is Layout.LAST:
        last = max(tokens - 1 - context, 0)
        return min(end, last) if at_least <= last else tokens
    return end


def check_window_options(context: int, stride: int | None) -> None:
    """Refuse an impossible context or stride.

    Raises:
        UsageError: a context below 1, or a stride outside 1..`context`.
    """
    if context < 1:
        raise UsageError("windows.context", f"`context` {context}: a window needs at least 1 input token")
    if stride is not None and not 1 <= stride <= context:
        raise UsageError("windows.stride", f"`stride` {stride}: must lie between 1 and the context, {context}")
