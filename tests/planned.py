"""Plans the windows and rows of whole documents with the functions of `lossprobe.plan`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from lossprobe.checkpoint.interface import Tokens
from lossprobe.plan.rows import Rows, WindowPolicy, plan_pieces
from lossprobe.plan.windows import Window, window_of


def rolling_windows(tokens: int, context: int, stride: int | None = None) -> Iterator[Window]:
    """Yield the rolling windows of a document of `tokens` tokens with its BOS; scoring starts at token 1."""
    number, start = window_of(np.arange(tokens), context, stride or context)
    for window in range(int(number[-1]) + 1 if tokens else 0):
        members = np.flatnonzero(number == window)
        (first,) = set(start[members].tolist())
        yield Window(first, int(members[-1]) + 1, max(int(members[0]), 1))


def whole_document(number: int, tokens: Tokens, policy: WindowPolicy, first_window: int = 0) -> Rows:
    """Return the rows of one document, planned as one piece; an empty document has no rows."""
    pieces = list(plan_pieces(number, tokens, policy, first_window, sys.maxsize))
    nothing = np.zeros(0, np.int64)
    return (
        Rows.join(pieces) if pieces else Rows(*[nothing] * (len(Rows.__dataclass_fields__) - 1), nothing.astype(bool))
    )
