"""Freed memory is kept, and what the user has chosen stands."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Sixteen pieces of 8 MiB, freed together and taken again: 8,192 times 16 KiB at least each time, unless they are kept.
FAULTS = """
import resource
import numpy as np
from lossprobe.environment import settle_environment
settle_environment()
def passed():
    pieces = [np.ones(1 << 20) for _ in range(16)]
passed()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    passed()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")


def faults(**environment: str) -> int:
    command = [sys.executable, "-c", FAULTS]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return int(subprocess.run(command, env=kept | environment, capture_output=True, check=True).stdout)


@only_glibc
def test_freed_memory_is_used_again():
    assert faults() < 4096


@only_glibc
@pytest.mark.parametrize("environment", [
    {"MALLOC_TRIM_THRESHOLD_": "131072"},
    {"MALLOC_MMAP_THRESHOLD_": "65536"},
    {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=65536"},
])  # fmt: skip
def test_what_the_user_has_chosen_stands(environment):
    assert faults(**environment) > 16384


@only_glibc
@pytest.mark.parametrize("environment", [
    {"MALLOC_ARENA_MAX": "2"},
    {"MALLOC_CONF": "narenas:1"},
    {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F:glibc.malloc.tcache_count=0"},
])  # fmt: skip
def test_what_the_user_has_chosen_for_another_purpose_changes_nothing(environment):
    assert faults(**environment) < 4096
