"""Settles how many threads the matrix libraries start, and how they wait, by what is left of the processors.

Both are environment variables that the libraries read when they are imported. Those that the user has set stand.
"""

from __future__ import annotations

import os
from pathlib import Path

from lossprobe.control_groups import groups_of, read_text
from lossprobe.units import plural

THREADS = "OMP_NUM_THREADS"
WAITING = "OMP_WAIT_POLICY"
WAITING_CHOSEN = (WAITING, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Share of the last ten seconds in which a process of this machine waited for a processor, in percent. Threads that wait
# for each other busily, as is the default, then wait for a thread that does not run: a pass with two threads on two
# processors that others used took 20 to 71 s, 12 to 14 s with threads that sleep. On an idle machine sleeping costs up
# to 30 % with a tiny model.
CROWDED = 25.0


def settle_threads(root: Path = Path("/")) -> None:
    """Set the variables for threads, before torch and numba are imported, where the user has not.

    Args:
        root: the folder with `proc` and `sys`.
    """
    quota = processor_quota(root)
    if THREADS not in os.environ and quota is not None and quota < available_processors():
        os.environ[THREADS] = str(max(1, int(quota)))
    if not any(name in os.environ for name in WAITING_CHOSEN) and pressure(root) >= CROWDED:
        os.environ[WAITING] = "passive"


def described_processors(root: Path = Path("/")) -> str:
    """Return what the threads were chosen by, such as "2 processors, a quota of 1.5"."""
    count, quota, waited = available_processors(), processor_quota(root), pressure(root)
    limit = "" if quota is None else f", a quota of {quota:g}"
    crowded = f"; for {waited:.0f} % of the last 10 s a process waited for one" if waited else ""
    return f"{plural(count, 'processor')}{limit}{crowded}"


def available_processors() -> int:
    """Return the number of processors that this process may run on."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def processor_quota(root: Path = Path("/")) -> float | None:
    """Return how many processors' time the control groups of this process allow, as containers have it; None if all.

    torch counts the processors of the machine. With more threads than the quota has processors, all of them are stopped
    for the rest of each period of 0.1 s.

    Args:
        root: the folder with `proc` and `sys`.
    """
    found = [quota for folder in groups_of("cpu", root) for quota in (_quota_of(folder),) if quota is not None]
    return min(found, default=None)


def pressure(root: Path = Path("/")) -> float:
    """Return the percentage of the last ten seconds in which some process waited for a processor; 0 if unknown.

    Args:
        root: the folder with `proc`.
    """
    for line in read_text(root / "proc/pressure/cpu").splitlines():
        kind, _, values = line.partition(" ")
        named = dict(pair.split("=", 1) for pair in values.split() if "=" in pair)
        if kind == "some":
            return _number(named.get("avg10", "")) or 0.0
    return 0.0


def _quota_of(folder: Path) -> float | None:
    """Return the processors that one control group allows, by its files of version 2 or 1; None for no limit."""
    words = read_text(folder / "cpu.max").split()
    if len(words) != 2:
        words = [read_text(folder / "cpu.cfs_quota_us").strip(), read_text(folder / "cpu.cfs_period_us").strip()]
    time, period = map(_number, words)
    return time / period if time is not None and period is not None and time > 0 and period > 0 else None


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:  # "max", or nothing
        return None
