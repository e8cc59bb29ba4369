"""Which tokens a model sees at once, and which of them it is asked to predict. Integers only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lossprobe.errors import UsageError
from lossprobe.plan.layout import Layout as Layout

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """A run of one document's tokens that goes through the model in one row.

    The inputs are tokens `start` to `stop - 2`; the targets that are scored here are `first_scored` to
    `stop - 1`. A target t has t − start tokens of context.
    """

    start: int
    stop: int
    first_scored: int


def window_of(
    token: Integers, context: int, stride: int, layout: Layout = Layout.ROLLING, tokens: int = 0
) -> tuple[Integers, Integers]:
    """Return in which window each token is scored, or would be, and where that window starts.

    Without a layout every token but the document's first is scored once, in text order. With a stride equal to the
    context, windows share one token: the last target of one is the first input of the next, whose first target has
    1 token of context. With a stride S below it, every target has at least `context` − S + 1 tokens of context where
    they exist.

    Args:
        token: int64 [N], indices of tokens in one document; the first one belongs to the first window.
        context: most input tokens of one window; the last of its `context` + 1 tokens is only a target.
        stride: new tokens scored by each rolling window after the first.
        layout: how the windows lie.
        tokens: number of tokens of the document; needed for a last window that is full.

    Returns:
        int64 [N], number of the window, from 0; int64 [N], its first token.

    >>> number, start = window_of(np.arange(7), context=4, stride=2)
    >>> number.tolist(), start.tolist()
    ([0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 2, 2])
    >>> window_of(np.arange(7), 4, 4, Layout.LAST_FULL, tokens=7)[1].tolist()
    [0, 0, 0, 0, 0, 2, 2]
    >>> window_of(np.arange(7), 4, 4, Layout.DISJOINT)[1].tolist()
    [0, 0, 0, 0, 0, 5, 5]
    """
    if layout in (Layout.ROLLING, Layout.LAST_FULL):
        number = np.maximum(token - context + stride - 1, 0) // stride
        start = number * stride
        if layout is Layout.LAST_FULL:
            start = np.minimum(start, max(tokens - 1 - context, 0))
        return number, start
    number = token // (context + 1)
    return number, number * (context + 1)


def window_end(at_least: int, context: int, stride: int, layout: Layout = Layout.ROLLING) -> int:
    """Return the smallest number of tokens from `at_least` on after which a window ends, in an endless document.

    >>> [window_end(size, context=4, stride=2) for size in (1, 5, 6, 7, 8)]
    [5, 5, 7, 7, 9]
    >>> window_end(6, 4, 4, Layout.DISJOINT)
    10
    """
    if layout in (Layout.ROLLING, Layout.LAST_FULL):
        return context + 1 + -(-max(0, at_least - context - 1) // stride) * stride
    return -(-at_least // (context + 1)) * (context + 1)


def check_window_options(context: int, stride: int | None) -> None:
    """Refuse a context or stride that no window plan can have.

    Raises:
        UsageError: a context below 1, or a stride outside 1..`context`.
    """
    if context < 1:
        raise UsageError("windows.context", f"`context` {context}: a window needs at least 1 input token")
    if stride is not None and not 1 <= stride <= context:
        raise UsageError("windows.stride", f"`stride` {stride}: must lie between 1 and the context, {context}")
