"""Memory of a process: how far it rises above what it held before, and the peak of a command. Linux only.

    python tests/benchmarks/memory.py COMMAND...

runs a command, whose output goes nowhere, and prints its seconds and its peak in MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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


def peak_of(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Return the seconds of a command in a folder, and the peak of its memory in MB.

    What starts a program is counted as the program's own peak: the system takes over what the process held that it
    was started from. So a small process in between starts it.
    """
    own = [sys.executable, "-I", "-S", __file__, *command]
    done = subprocess.run(own, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> int:
    """Run the command of the command line, print its seconds and its peak, and return its exit status."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    print(time.perf_counter() - start, usage.ru_maxrss / 1024)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(main())
