"""Measures the memory of a function in this process, and of a command. Linux only.

    python tests/benchmarks/memory.py COMMAND...

runs a command without its output, and prints its seconds and its peak memory in MB.
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
    """Return the peak of the resident memory while `work` ran, in MB above that at its start."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # resets the high-water mark of the memory
    before = held("VmRSS")
    work()
    return held("VmHWM") - before


def held(name: str) -> float:
    """Return an entry of /proc/self/status, such as VmRSS, in MB."""
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) / 1024


def in_own_process(*arguments: str) -> str:
    """Run a Python program in another process, and return the last line that it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def peak_of(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder, and return its seconds and its peak memory in MB.

    Linux counts the memory of the process that starts a command as part of the command's peak. So a small process
    starts it, by `main`.
    """
    own = [sys.executable, "-I", "-S", __file__, *command]
    done = subprocess.run(own, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> int:
    """Run the command given as arguments, print its seconds and its peak memory, and return its exit status."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    print(time.perf_counter() - start, usage.ru_maxrss / 1024)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(main())
