"""Compare what a template writes by its smallest units: names of control tokens, white space, words."""

from __future__ import annotations

import re

ASSISTANT, USER, SYSTEM = "assistant", "user", "system"
UNIT = re.compile(r"<\|[^<>|\s]{1,60}\|>|</?[^<>\s]{1,60}>|\[/?[A-Z_]{1,30}\]|\s|[^\s<\[]+|.", re.DOTALL)


def common_start(one: str, other: str) -> str:
    """Return the longest common start of two texts that ends between units, such as names of control tokens."""
    if one.startswith(other) or other.startswith(one):
        return min(one, other, key=len)
    end = 0
    for left, right in zip(UNIT.finditer(one), UNIT.finditer(other), strict=False):
        if left[0] != right[0]:
            break
        end = left.end()
    return one[:end]
