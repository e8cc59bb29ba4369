"""Which modules a pattern of a quantization_config names.

Patterns come from a file that is not trusted, so a regular expression that could take long is refused.
"""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]  # the only way to look at an expression
from collections.abc import Collection, Iterator
from typing import Any

from lossprobe.errors import CheckpointError
from lossprobe.units import visible

MOST_REPEATS = 4  # unbounded repeats one after the other; the time to match grows as the length to this power
LONGEST = 300  # characters of a pattern or of a module's name


def compiled(pattern: str, shown: str) -> re.Pattern[str]:
    """Return a regular expression.

    Args:
        pattern: the expression.
        shown: where it stands, for messages.

    Raises:
        CheckpointError: it is damaged, or it could take very long to match.
    """
    try:
        if len(pattern) > LONGEST or _repeats(parser.parse(pattern)) > MOST_REPEATS:
            raise ValueError("it could take too long to match")
        return re.compile(pattern)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        what = f"{shown}: pattern {visible(pattern, 80)}: {visible(str(error), 80)}"
        raise CheckpointError("checkpoint.quantized_config", what) from None


def wildcard(pattern: str, shown: str) -> re.Pattern[str]:
    """Return the expression of a pattern in which * stands for any characters."""
    return compiled(".*".join(map(re.escape, pattern.split("*"))), shown)


def _repeats(tree: Any) -> int:
    """Return the number of unbounded repeats of an expression; one inside another counts as too many."""
    total = 0
    for operation, argument in tree:
        inner = sum(map(_repeats, _inner(argument)))
        if operation in (parser.MAX_REPEAT, parser.MIN_REPEAT) and argument[1] > LONGEST:
            total += 1 if inner == 0 else MOST_REPEATS + 1
        total += inner
    return total


def _inner(argument: Any) -> Iterator[Any]:
    """Yield the expressions inside the argument of an operation."""
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _inner(each)


def stands_in(name: str, keys: Collection[str]) -> bool:
    """Return whether one of some keys is a run of whole parts of a module's name.

    The keys "lm_head", "mlp.gate" and "model.layers.*.self_attn" are in "lm_head", "model.layers.3.mlp.gate" and
    "model.layers.3.self_attn.q_proj"; "gate" is not in "mlp.gate_proj".
    """
    parts = name.split(".")
    for key in keys:
        wanted = key.split(".")
        for start in range(len(parts) - len(wanted) + 1):
            if all(one in ("*", each) for one, each in zip(wanted, parts[start:], strict=False)):
                return True
    return False
