"""How the windows of a document lie."""

from __future__ import annotations

from enum import StrEnum


class Layout(StrEnum):
    """How the windows of a document lie; what differs from `ROLLING` is there to score as other tools do.

    Attributes:
        ROLLING: each window scores what follows the last one's targets.
        LAST_FULL: the same, but the last of several windows starts early enough to be full.
        DISJOINT: windows that share no token; the first token of each has no context, and no loss.
        SECOND_HALF: disjoint full windows, of which only the second half is scored; what does not fill one is left out.
        FIRST: one window a document; what lies beyond it is left out.
        WHOLE: one window a document, which has to hold all of it.
    """

    ROLLING = "rolling"
    LAST_FULL = "last_full"
    DISJOINT = "disjoint"
    SECOND_HALF = "second_half"
    FIRST = "first"
    WHOLE = "whole"
