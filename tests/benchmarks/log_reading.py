"""Times a log of JSON Lines with its diagnoses against pandas; measures the command on 10^7 lines of a console.

    python tests/benchmarks/log_reading.py [jsonl|nanogpt|llmc|megatron]

Prints the ratio of processor times (at most 1.5, both in this process) and the peak memory of `lossprobe curve` (at
most 600 MB). The rows of the JSON Lines make 3 epochs, or 10,000.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lossprobe.analysis.curve.curve import curve
from lossprobe.logs.read import read_log

ROWS = 10**6
LINES = 10**7


def write_jsonl(path: Path, epochs: float) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(1, ROWS + 1):
            row = {"step": step, "loss": round(2 + draw.random(), 4), "grad_norm": 3 * draw.random()}
            row |= {"learning_rate": 1e-4 * step / ROWS, "epoch": step / ROWS * epochs}
            file.write(json.dumps(row) + "\n")


def write_nanogpt(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(LINES):
            if step % 1000 == 0:
                file.write(f"step {step}: train loss {2 + draw.random():.4f}, val loss {2 + draw.random():.4f}\n")
            file.write(f"iter {step}: loss {2 + draw.random():.4f}, time 35.{step % 100:02}ms, mfu 10.42%\n")


def write_llmc(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        file.write("| vocab_size V          | 50257                                              |\n")
        for step in range(1, LINES + 1):
            loss, rate = 2 + draw.random(), 1e-4 * step / LINES
            file.write(
                f"step {step:4}/{LINES} | loss {loss:.6f} (+0.1z)| norm {3 * draw.random():.4f} (-0.1z)| lr {rate:.2e} "
                f"| 4621.47 ms | 29.2% bf16 MFU | 113446 tok/s\n"
            )


def write_megatron(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(1, LINES + 1):
            loss, rate = 2 + draw.random(), 1e-4 * step / LINES
            file.write(
                f" [2026-01-01 10:00:{step % 60:02}] iteration {step:8}/{LINES:8} | consumed samples: {256 * step:12} "
                f"| learning rate: {rate:.6E} | lm loss: {loss:.6E} | loss scale: 1.0 | grad norm: {3 * loss:.3f} "
                f"| number of skipped iterations:   0 | number of nan iterations:   0 |\n"
            )


def jsonl(folder: Path) -> None:
    import pandas as pd

    path = folder / "log.jsonl"
    for epochs in (3, 10_000):
        write_jsonl(path, epochs)
        readers = (("pandas", lambda: pd.read_json(path, lines=True)), ("lossprobe", lambda: curve([read_log(path)])))
        times: dict[str, list[float]] = {name: [] for name, _ in readers}
        for _ in range(3):
            for name, read in readers:
                start = time.process_time()
                read()
                times[name].append(time.process_time() - start)
        best = {name: min(each) for name, each in times.items()}
        print(f"{ROWS:,} rows, {epochs:,} epochs: pandas {best['pandas']:.2f} s, lossprobe {best['lossprobe']:.2f} s, "
              f"ratio {best['lossprobe'] / best['pandas']:.2f} (at most 1.5)")  # fmt: skip


def console(folder: Path, kind: str, write: Callable[[Path], None]) -> None:
    path = folder / "log.txt"
    write(path)
    for outputs in ((), ("--json", "--plot", str(folder / "log.png"))):
        command = (sys.executable, "-m", "lossprobe", "curve", str(path), *outputs)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
            _, status, used = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        told = "a JSON and a picture" if outputs else "a CSV of all values"
        print(f"{kind}, {LINES:,} lines, {told}: exit code {started.returncode}, {used.ru_utime:.0f} s, "
              f"peak {used.ru_maxrss / 1024:.0f} MB (at most 600)")  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        parts = {
            "jsonl": jsonl,
            "nanogpt": lambda folder: console(folder, "nanoGPT", write_nanogpt),
            "llmc": lambda folder: console(folder, "llm.c", write_llmc),
            "megatron": lambda folder: console(folder, "Megatron-LM", write_megatron),
        }
        for part in sys.argv[1:] or parts:
            parts[part](Path(name))
