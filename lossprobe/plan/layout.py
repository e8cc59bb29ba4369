"""The ways in which windows can be laid over the tokens of a document."""

from __future__ import annotations

from enum import StrEnum


class Layout(StrEnum):
    """How windows are laid over the tokens of a document. `ROLLING` is the default; other tools use the others.

    Attributes:
        ROLLING: each window scores the tokens after those that the window before it scored.
        LAST_FULL: as `ROLLING`, but the last of several windows starts earlier so that it is full.
        DISJOINT: windows share no token; the first token of each has no context and is not scored.
        SECOND_HALF: disjoint full windows, of which only the second half is scored; tokens after the last full window
            are not scored.
        FIRST: one window a document; tokens after it are not scored.
        LAST: one window a document, at its end; tokens before it are not scored.
        WHOLE: one window a document; a longer document is an error.
    """

    ROLLING = "rolling"
    LAST_FULL = "last_full"
    DISJOINT = "disjoint"
    SECOND_HALF = "second_half"
    FIRST = "first"
    LAST = "last"
    WHOLE = "whole"
