"""When a number per byte, character or word can be given, and what must be said beside it: one rule for every view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossprobe.units import plural


def why_not_per_byte(counts: Mapping[str, Any]) -> str | None:
    """Return the reason why losses cannot be given per byte or character; None if they can.

    Args:
        counts: the `counts` of a run.
    """
    if not counts["spans_tile"] and not counts.get("vanished_bytes", 0):
        return "the tokenizer's offsets do not tile the text"
    return why_not_per_word(counts)


def why_not_per_word(counts: Mapping[str, Any]) -> str | None:
    """Return the reason why the loss cannot be given per word; None if it can."""
    vanished = int(counts.get("vanished_bytes", 0))
    if not vanished:
        return None
    have = "has" if vanished == 1 else "have"
    return f"{plural(vanished, 'byte')} of the text {have} no token, so that nothing was paid for them"


def rewriting_note(counts: Mapping[str, Any]) -> str | None:
    """Return a note on numbers per byte of a text that the tokenizer rewrites; None if it rewrites nothing."""
    rewritten = int(counts["normalized_bytes"])
    if not rewritten:
        return None
    share = rewritten / max(1, int(counts["bytes"]))
    return (
        f"{plural(rewritten, 'byte')} ({share:.2%}) of the text dropped or rewritten by the tokenizer, which cost it "
        "nothing: numbers per byte, character and word are too low by what restoring them would cost"
    )
