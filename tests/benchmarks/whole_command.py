"""Measures what scoring a short text takes as a whole command, against what it takes to import the libraries.

    python tests/benchmarks/whole_command.py CHECKPOINT [RUNS]

4 kB of the bundled text are scored RUNS times (7) in new folders, in turn with a process that imports torch and
transformers and leaves; one run of each before them is not counted. Printed are medians in seconds and in processor
seconds, those of children included, and the ratio of each pair of runs: median, smallest and largest. Not on Windows.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[2]
CHARACTERS = 4_000
PEER = "import torch, transformers; from transformers import AutoModelForCausalLM"


def measure(command: list[str]) -> tuple[float, float]:
    """Return seconds and processor seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_text(folder: Path) -> Path:
    """Return a file with the first characters of the bundled text."""
    records = (HERE / "examples" / "jargon-valid.jsonl").read_text("utf-8").splitlines()
    text = folder / "text.txt"
    text.write_text("\n".join(json.loads(record)["text"] for record in records)[:CHARACTERS], "utf-8")
    return text


def main() -> None:
    """Print a line for seconds and one for processor seconds."""
    checkpoint, runs = str(Path(sys.argv[1]).resolve()), int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        score = [sys.executable, "-m", "lossprobe", "score", checkpoint, str(write_text(folder)), "--quiet", "-o"]
        rounds = [
            (measure([*score, str(folder / str(number))]), measure([sys.executable, "-c", PEER]))
            for number in range(runs + 1)
        ][1:]
    for kind, name in enumerate(("seconds", "processor seconds")):
        ours, theirs = ([each[place][kind] for each in rounds] for place in (0, 1))
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        print(
            f"{name:18} score {median(ours):.2f} | imports {median(theirs):.2f} | "
            f"ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
