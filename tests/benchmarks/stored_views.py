"""Measures what views of a stored run cost as whole commands, in processor seconds and seconds. Not on Windows.

    python tests/benchmarks/stored_views.py RUN [RUNS] [OTHER] [SECOND]

Each command is run RUNS times (5), after one run that is not counted, and the median is printed. With OTHER, the
folder of another checkout, its commands are run in turn with these, and the ratios of the medians are printed too.
With SECOND, a run of another model on the same text, both are compared. `large_run.py` makes runs of any size.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parents[2]
VIEWS = (
    ("perplexity",),
    ("hardest",),
    ("hardest", "--by", "type"),
    ("positions",),
    ("calibration",),
    ("tokens", f"--csv={os.devnull}"),
)


def measure(checkout: Path, run: Path, view: tuple[str, ...]) -> tuple[float, float]:
    """Return processor seconds and seconds of a view of a run."""
    command = [sys.executable, "-m", "lossprobe", view[0], str(run), *view[1:]]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        command, env=environment, cwd=run.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - start


def main() -> None:
    """Print a line for each view."""
    run, runs = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    checkouts = [HERE, *(Path(folder).resolve() for folder in sys.argv[3:4])]
    for view in (*VIEWS, *(("compare", str(Path(second).resolve())) for second in sys.argv[4:5])):
        rounds = [[measure(checkout, run, view) for checkout in checkouts] for _ in range(runs + 1)][1:]
        found = [[median(each[place][kind] for each in rounds) for kind in (0, 1)] for place in range(len(checkouts))]
        shown = " | ".join(f"{cpu:7.2f} s of processor, {seconds:7.2f} s" for cpu, seconds in found)
        ratios = [one / other for one, other in zip(*found, strict=True)] if len(found) > 1 else []
        ratio = " | {:.2f} of the processor time, {:.2f} of the time".format(*ratios) if ratios else ""
        name = "compare" if view[0] == "compare" else " ".join(view)
        print(f"{name:24} {shown}{ratio}", flush=True)


if __name__ == "__main__":
    main()
