"""Which shard a process is: counted from 1, or from what Slurm and torchrun set."""

from __future__ import annotations

import pytest

from lossprobe.errors import UsageError
from lossprobe.plan.shard import Shard, read_shard


def slurm(task, first, last, count=None):
    values = {"ID": task, "MIN": first, "MAX": last, "COUNT": last - first + 1 if count is None else count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("given", "environment", "shard"),
    [
        ("1/1", {}, "1/1"),
        ("3/8", {}, "3/8"),
        ("008/8", {}, "8/8"),
        ("slurm", slurm(0, 0, 7), "1/8"),
        ("slurm", slurm(8, 1, 8), "8/8"),
        ("torchrun", {"RANK": "0", "WORLD_SIZE": "4"}, "1/4"),
        ("torchrun", {"RANK": "3", "WORLD_SIZE": "4"}, "4/4"),
    ],
)
def test_a_shard_is_read(given, environment, shard):
    assert str(read_shard(given, environment)) == shard


@pytest.mark.parametrize(
    ("given", "environment", "id_", "words"),
    [
        ("0/8", {}, "shard.number", "numbered from 1: 1/8 to 8/8"),
        ("9/8", {}, "shard.number", "numbered from 1"),
        ("1/0", {}, "shard.number", "0 shards"),
        ("1/2000000", {}, "shard.number", "1 to 1,000,000"),
        ("1/99999999999999", {}, "shard.number", r"more than 1,000,000,000,000 shards; there can be 1 to 1,000,000"),
        ("99999999999999/8", {}, "shard.number", "numbered from 1: 1/8 to 8/8"),
        ("torchrun", {"RANK": "1", "WORLD_SIZE": "9" * 5000}, "shard.number", "there can be 1 to 1,000,000"),
        ("3", {}, "shard.number", "is not I/N"),
        ("-1/8", {}, "shard.number", "is not I/N"),
        ("1.5/8", {}, "shard.number", "is not I/N"),
        ("", {}, "shard.number", "is not I/N"),
        ("slurm", {}, "shard.environment", "SLURM_ARRAY_TASK_ID is not set"),
        ("slurm", slurm("x", 0, 3), "shard.environment", "SLURM_ARRAY_TASK_ID is x, no number"),
        ("slurm", slurm(3, 3, 7, 2), "shard.array", "2 tasks from 3 to 7 are no whole array"),
        ("slurm", slurm(5, 5, 8), "shard.array", "no whole array"),
        ("torchrun", {"RANK": "0"}, "shard.environment", "WORLD_SIZE is not set"),
        ("torchrun", {"RANK": "4", "WORLD_SIZE": "4"}, "shard.number", "numbered from 1"),
    ],
)
def test_what_names_no_shard_is_refused(given, environment, id_, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_shard(given, environment)
    assert caught.value.id == id_


@pytest.mark.parametrize(("parts", "count"), [(0, 3), (1, 1), (10, 3), (3, 10)])
def test_each_part_has_one_shard(parts, count):
    shares = [Shard(index, count).own(parts) for index in range(1, count + 1)]
    assert sorted(part for share in shares for part in share) == list(range(parts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for shard, share in enumerate(shares, start=1):
        assert {Shard(1, count).owner(part) for part in share} <= {Shard(shard, count)}
