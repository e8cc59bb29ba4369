"""Memory of a process while it works: how far it rises above what it held before. Linux only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

STATUS = Path("/proc/self/status")


def rise_of(work: Callable[[], object]) -> float:
    """Return by how many MB the resident memory rose above its start while `work` ran."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the high-water mark falls to what is held now
    before = held("VmRSS")
    work()
    return held("VmHWM") - before


def held(name: str) -> float:
    """Return a memory entry of this process in MB."""
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def in_own_process(*arguments: str) -> str:
    """Run this benchmark's program with other arguments, and return the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]
