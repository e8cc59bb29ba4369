"""Finds the training step of each checkpoint of a run, and puts the checkpoints in its order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lossprobe.logs.trainer_state import step_of
from lossprobe.units import visible

NAMED = re.compile(
    r"(?:^|[^a-z])(global_step|step|iteration|iter|it|update|checkpoint|ckpt|epoch)s?[-_=.]?(\d+)([km]?)(?![a-z\d])",
    re.I,
)
NUMBER = re.compile(r"\d+")
TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
LONGEST = 15  # digits of a step
SHOWN = 8  # names that a note lists


@dataclass(frozen=True)
class StepOrder:
    """The order of checkpoints.

    Attributes:
        order: the place of each checkpoint among those given, in the order of training.
        steps: the step of each in that order, rising.
        unit: what steps count: "step", "epoch", or "checkpoint" where the checkpoints do not say.
        names: distinct names of the checkpoints in that order.
        notes: what a reader must know of how the order was found, one line each.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    unit: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def order_by_step(places: Sequence[Path]) -> StepOrder:
    """Return checkpoints in the order of their steps; in the given one, numbered from 1, where a step is not known.

    A step is that of a trainer_state.json in the folder, or stands in the name of the checkpoint or of its folder
    after a word such as "step", or is the one number in which the names differ.

    Args:
        places: the folders or files of the checkpoints; one that is not there any more is known by its name.

    Raises:
        UsageError: a trainer_state.json cannot be read.
    """
    names = distinct(places)
    found = [_step(place) for place in places]
    varying = _varying(places) if None in found else []
    if varying and None not in varying:
        found = varying
    missing = [name for name, step in zip(names, found, strict=True) if step is None]
    steps = [step for step in found if step is not None]
    twice = [step for step, count in Counter(steps).items() if count > 1]
    if missing or twice or len({unit for unit, _ in steps}) > 1:
        why = _why(missing, twice, names, found)
        note = f"{why}: in the order given, numbered from 1"
        counted = tuple(range(len(places)))
        return StepOrder(counted, tuple(at + 1 for at in counted), "checkpoint", tuple(names), (note,))
    order = tuple(sorted(range(len(places)), key=lambda at: steps[at][1]))
    notes = ("put in the order of their steps, which is not the order given",) if order != tuple(sorted(order)) else ()
    return StepOrder(
        order, tuple(steps[at][1] for at in order), steps[0][0] if steps else "step",
        tuple(names[at] for at in order), notes,
    )  # fmt: skip


def distinct(places: Sequence[Path]) -> list[str]:
    """Return distinct names of paths: the last part of each, with as many folders before it as tell them apart.

    >>> distinct([Path("a/step1/model.pt"), Path("a/step2/model.pt")]), distinct([Path("x/a"), Path("x/b")])
    (['step1/model.pt', 'step2/model.pt'], ['a', 'b'])
    """
    parts = [place.absolute().parts for place in places]
    depth = 1
    while len({own[-depth:] for own in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(own[-depth:]) for own in parts]


def _step(place: Path) -> tuple[str, int] | None:
    """Return what a checkpoint counts and the number, by its own files or name; None if they do not say."""
    for folder in (place, place.parent):
        if folder.is_dir() and (step := step_of(folder)) is not None:
            return "step", step
        if (named := NAMED.search(folder.name if folder.is_dir() else folder.stem)) is not None:
            word, digits, times = named.groups()
            unit = "epoch" if word.lower() == "epoch" else "step"
            if len(digits) <= LONGEST:
                return unit, int(digits) * TIMES[times.lower()]
    return None


def _varying(places: Sequence[Path]) -> list[tuple[str, int] | None]:
    """Return the one number in which the names differ as their steps; None for each where they differ in more."""
    names = ["/".join(place.absolute().parts[-2:]) for place in places]
    numbers = [NUMBER.findall(name) for name in names]
    alike = len({NUMBER.sub("#", name) for name in names}) == 1 and len(names) > 1
    columns = [column for column in zip(*numbers, strict=False) if len(set(column)) > 1] if alike else []
    if len(columns) != 1 or max(map(len, columns[0])) > LONGEST:
        return [None] * len(places)
    return [("step", int(number)) for number in columns[0]]


def _why(
    missing: list[str], twice: list[tuple[str, int]], names: list[str], found: Sequence[tuple[str, int] | None]
) -> str:
    """Return why steps cannot be used, in words."""
    if missing:
        return f"no step is known of {_listed(missing)}"
    if twice:
        same = [name for name, step in zip(names, found, strict=True) if step == twice[0]]
        return f"{twice[0][0]} {twice[0][1]} is that of {_listed(same)}"
    return "some names count steps and others epochs"


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > SHOWN else ""
    return ", ".join(visible(name, 60) for name in names[:SHOWN]) + more
