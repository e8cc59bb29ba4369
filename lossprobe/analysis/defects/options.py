"""The choices of `defects`."""

from __future__ import annotations

from dataclasses import dataclass

from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.options.declare import option
from lossprobe.options.kinds import MAX_COUNT, Choice, Names, Number

EVERY = "any"  # of `fail_on`: every cause


@dataclass(frozen=True)
class DefectOptions:
    """The choices of `defects`.

    Attributes:
        cause: the cause whose places are listed; None for a row a cause.
        top: rows of these places, the dearest first.
        fail_on: causes that make the exit code 10; "any" for every one.
    """

    cause: str | None = option(None, Choice(tuple(CAUSES)), "List the places of this cause.", metavar="CAUSE")
    top: int = option(20, Number(1, MAX_COUNT, whole=True), "How many of them; the CSV has all.")
    fail_on: tuple[str, ...] = option(
        (), Names((*CAUSES, EVERY)),
        "Exit with 10 where one of these is found (lossprobe explain lists them; any: every one).",
        metavar="CAUSE,...",
    )  # fmt: skip
