"""Match the patterns of an adapter_config.json before peft does, because a regular expression can take for ever.

They come from a file that is not trusted, and peft gives them to Python's `re`, which has no limit of time. So those
that are more than names are matched in a child process first, on the same names and in the same ways.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from lossprobe.checkpoint.adapters.config import CONFIG
from lossprobe.checkpoint.files.refusals import refusal
from lossprobe.units import visible

SECONDS: Final = 10.0  # for all patterns on all modules; peft matches each of them at most a few times
ALL_LINEAR: Final = "all-linear"  # the one text in target_modules that peft does not take as an expression
NAME: Final = re.compile(r"[\w.-]*", re.ASCII)  # an expression of these matches in one step for each character
# The child reads [ways, names], and answers each way (a method and its expression) with the numbers of the names that
# match, or with why it is no expression.
CHILD: Final = """
import json, re, sys
def found(method, expression, names):
    try:
        matches = getattr(re.compile(expression), method)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return [number for number, name in enumerate(names) if matches(name)]
ways, names = json.load(sys.stdin)
json.dump([found(*way, names) for way in ways], sys.stdout)
"""
Way = tuple[str, str]  # the name of a method of `re.Pattern`, and an expression


def matched_patterns(folder: Path, values: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, set[str]]]:
    """Return which modules the patterns of adapter_config.json match: key → pattern → names.

    Args:
        folder: the adapter's folder, for messages.
        values: the keys that decide the function.
        names: the names of the base's modules.

    Raises:
        CheckpointError: `adapter.config_value`: a pattern is no regular expression, or they take too long to match.
    """
    stated = list(_ways(values))
    ways = [way for _, _, way in stated]
    numbers: list[list[int] | str]
    if all(NAME.fullmatch(pattern) for _, pattern, _ in stated):
        numbers = [[at for at, name in enumerate(names) if getattr(re, method)(expression, name)]
                   for method, expression in ways]  # fmt: skip
    else:
        numbers = _in_child(folder, ways, names)
    found: dict[str, dict[str, set[str]]] = {}
    for (key, pattern, _), those in zip(stated, numbers, strict=True):
        if isinstance(those, str):
            what = f"{key}: {visible(pattern, 80)} is no regular expression: {visible(those, 80)}"
            raise refusal("adapter.config_value", folder / CONFIG, what)
        found.setdefault(key, {})[pattern] = {names[at] for at in those}
    return found


def doubtful_patterns(
    found: Mapping[str, Mapping[str, set[str]]], values: Mapping[str, Any], changed: Iterable[str]
) -> Iterator[str]:
    """Yield what peft does not say of the patterns of ranks and scalings, one line each.

    A pattern that matches no module of the adapter is passed over. Of two that match one module the first counts, and
    peft sorts them where it saves, so that it may not be the one that was trained. With ranks another one would not fit
    the shapes of the tensors; a scaling nothing gives away.

    Args:
        found: as `matched_patterns` returns it.
        values: the keys that decide the function.
        changed: names of the modules that the adapter changes.
    """
    layers = set(changed)
    for key in ("rank_pattern", "alpha_pattern"):
        of_adapter = {pattern: matches & layers for pattern, matches in found.get(key, {}).items()}
        for pattern, matches in of_adapter.items():
            if not matches:
                yield f"{key} of the adapter: {visible(pattern, 80)} matches none of its modules, and changes nothing"
        for first, second in combinations(of_adapter, 2) if key == "alpha_pattern" else ():
            both = of_adapter[first] & of_adapter[second]
            if both and values[key][first] != values[key][second]:
                where = f"{visible(first, 80)} and {visible(second, 80)} both match {visible(min(both), 80)}"
                yield f"{key} of the adapter: {where}; the first counts, in training it may have been the other"


def _ways(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Way]]:
    """Yield key, pattern and how peft matches it (0.21: `tuners_utils` and `utils.other`)."""
    for key in ("target_modules", "exclude_modules"):
        pattern = values.get(key)
        if isinstance(pattern, str) and pattern != ALL_LINEAR:
            yield key, pattern, ("fullmatch", pattern)
    for pattern in values.get("modules_to_save", []):
        yield "modules_to_save", pattern, ("match", rf"(^|.*\.){pattern}($|\..*)")
    layers = values.get("layers_pattern", [])
    for pattern in [layers] if isinstance(layers, str) else layers:
        yield "layers_pattern", pattern, ("match", rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.")
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in values.get(key, {}):
            yield key, pattern, ("match", rf"(.*\.)?({pattern})$")


def _in_child(folder: Path, ways: Sequence[Way], names: Sequence[str]) -> list[list[int] | str]:
    """Return the answer of a child process that matches the names, and that is killed where it takes too long."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", CHILD], input=json.dumps([ways, names]), text=True,
            capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        what = f"its patterns take more than {SECONDS:g} s to match"
        hint = "replace them by lists of module names"
        raise refusal("adapter.config_value", folder / CONFIG, what, hint) from None
    if done.returncode:
        what = f"its patterns cannot be matched: {visible(done.stderr.strip().rpartition(chr(10))[2], 80)}"
        raise refusal("adapter.config_value", folder / CONFIG, what, "replace them by lists of module names")
    answer: list[list[int] | str] = json.loads(done.stdout)
    return answer
