"""What a chat template does, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossprobe.units import visible

THINKING = {
    "all": "writes the reasoning_content of every answer",
    "last": "writes the reasoning_content of the last answer only",
    "none": "writes no reasoning_content",
}
PREFIXES = {
    True: "prefix-preserving (later turns change no earlier one)",
    False: "not prefix-preserving (later turns change earlier ones)",
}


def told_template(about: Mapping[str, Any] | None) -> str:
    """Return what a chat template does, as a list in one line.

    Args:
        about: its origin and the fields of `checkpoint.templates.behaviour.Behaviour`, or only "error"; None for none.
    """
    if about is None:
        return "none"
    if "error" in about:
        return f"not usable: {about['error']}"
    if about["fault"] is not None:
        return f"{about['origin']}; fails on a question with its answer: {visible(about['fault'], 300)}"
    marks = (
        "marks what is learned with {% generation %}" if about["generation_markers"] else "no {% generation %} marks"
    )
    said = [
        about["origin"],
        "another template for conversations with tools" if about["for_tools"] else "",
        marks,
        PREFIXES.get(about["prefix_preserving"], ""),
        THINKING.get(about["keeps_thinking"], ""),
        "writes a BOS" if about["bos"] else "writes no BOS",
        "strips white space around contents" if about["strips_space"] else "",
        "" if about["takes_system"] else "takes no system message",
        "has a system prompt of its own" if about["own_system"] else "",
        "writes the date, fixed at 26 July 2024" if about["dated"] else "",
    ]
    return "; ".join(filter(None, said))
