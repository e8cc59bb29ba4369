"""Times the reader of JSON Lines against pandas, and measures the memory that a console log of 10^7 lines takes.

    python tests/benchmarks/log_reading.py [jsonl|console]

Prints the ratio of processor times (at most 1.5, both in this process) and the peak memory (at most 600 MB).
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from lossprobe.logs.read import read_log

ROWS = 10**6
LINES = 10**7


def write_jsonl(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(1, ROWS + 1):
            row = {"step": step, "loss": round(2 + draw.random(), 4), "grad_norm": 3 * draw.random()}
            row |= {"learning_rate": 1e-4 * step / ROWS, "epoch": step / 3e5}
            file.write(json.dumps(row) + "\n")


def write_console(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(LINES):
            if step % 1000 == 0:
                file.write(f"step {step}: train loss {2 + draw.random():.4f}, val loss {2 + draw.random():.4f}\n")
            file.write(f"iter {step}: loss {2 + draw.random():.4f}, time 35.{step % 100:02}ms, mfu 10.42%\n")


def jsonl(folder: Path) -> None:
    import pandas as pd

    path = folder / "log.jsonl"
    write_jsonl(path)
    pd.read_json(path, lines=True, nrows=10)
    read_log(path)  # imports
    times: dict[str, list[float]] = {"pandas": [], "lossprobe": []}
    for _ in range(3):
        for name, read in (("pandas", lambda: pd.read_json(path, lines=True)), ("lossprobe", lambda: read_log(path))):
            start = time.process_time()
            read()
            times[name].append(time.process_time() - start)
    best = {name: min(each) for name, each in times.items()}
    print(f"{ROWS:,} rows: pandas {best['pandas']:.2f} s, lossprobe {best['lossprobe']:.2f} s, "
          f"ratio {best['lossprobe'] / best['pandas']:.2f} (at most 1.5)")  # fmt: skip


def console(folder: Path) -> None:
    path = folder / "log.txt"
    write_console(path)
    start = time.process_time()
    log = read_log(path)
    seconds = time.process_time() - start
    count = sum(len(each.steps) for each in log.series)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{LINES:,} lines: {count:,} values, {seconds:.0f} s, peak {peak:.0f} MB (at most 600)")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        for part in sys.argv[1:] or ["console", "jsonl"]:
            {"jsonl": jsonl, "console": console}[part](Path(name))
