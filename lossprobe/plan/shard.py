"""One of several processes that score one run together, each its share of the parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lossprobe.errors import UsageError
from lossprobe.units import visible

MOST = 1_000_000  # far above any cluster
DIGITS = 12  # a number with more of them is above every limit
SLURM, TORCHRUN = "slurm", "torchrun"
FORM = "I/N, such as 1/8 to 8/8, slurm or torchrun"


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`; they are numbered from 1, as they are written: "3/8".

    >>> list(Shard(2, 3).own(8)), str(Shard(2, 3))
    ([1, 4, 7], '2/3')
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def own(self, parts: int) -> range:
        """Return the numbers of its parts among those of a plan: every `count`-th, so that each gets some of all."""
        return range(self.index - 1, parts, self.count)

    def owner(self, part: int) -> Shard:
        """Return the shard, among as many, that a part belongs to."""
        return Shard(part % self.count + 1, self.count)

    def owns(self, part: int) -> bool:
        """Return whether a part belongs to this shard."""
        return self.owner(part) == self


def read_shard(given: str, environment: Mapping[str, str]) -> Shard:
    """Return the shard that a text names: "3/8" itself, "slurm" or "torchrun" from what these set for a process.

    >>> str(read_shard("slurm", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0",
    ...                          "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "8"}))
    '1/8'
    >>> str(read_shard("torchrun", {"RANK": "7", "WORLD_SIZE": "8"}))
    '8/8'

    Raises:
        UsageError: it is no shard, or the environment does not say which.
    """
    if given == SLURM:
        return _slurm(environment)
    if given == TORCHRUN:
        rank, size = _numbers(given, environment, ("RANK", "WORLD_SIZE"))
        return _checked(given, rank + 1, size)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", given)
    if match is None:
        raise UsageError("shard.number", f"`shard` {visible(given, 40)}: is not {FORM}")
    return _checked(given, _number(match[1]), _number(match[2]))


def _slurm(environment: Mapping[str, str]) -> Shard:
    """Return the shard of a task of an array, which must be whole: some tasks do not say how many all are."""
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    task, first, last, count = _numbers(SLURM, environment, names)
    if first > 1 or last - first + 1 != count:
        raise UsageError(
            "shard.array", f"`shard` slurm: {count} tasks from {first} to {last} are no whole array",
            hint="name the shard itself, such as `shard` $SLURM_ARRAY_TASK_ID/8 of an array of 1-8",
        )  # fmt: skip
    return _checked(SLURM, task - first + 1, count)


def _numbers(given: str, environment: Mapping[str, str], names: tuple[str, ...]) -> list[int]:
    found = []
    for name in names:
        value = environment.get(name, "")
        if re.fullmatch(r"[0-9]+", value) is None:
            what = f"is {visible(value, 40)}, no number" if value else "is not set"
            raise UsageError(
                "shard.environment", f"`shard` {given}: {name} {what}", hint="`shard` I/N says it without it"
            )
        found.append(_number(value))
    return found


def _number(digits: str) -> int:
    """Return the number that digits write; one that has more of them than any limit here, as just above the limits."""
    return int(digits) if len(digits) <= DIGITS else 10**DIGITS


def _checked(given: str, index: int, count: int) -> Shard:
    shown = f"`shard` {visible(given, 40)}"
    if not 1 <= count <= MOST:
        many = f"{count:,} shards" if count < 10**DIGITS else f"more than {10**DIGITS:,} shards"
        raise UsageError("shard.number", f"{shown}: {many}; there can be 1 to {MOST:,}")
    if not 1 <= index <= count:
        raise UsageError("shard.number", f"{shown}: shards are numbered from 1: 1/{count} to {count}/{count}")
    return Shard(index, count)
