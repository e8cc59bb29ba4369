"""Counts how often the diagnoses of a training log are right, on drawn logs whose truth is known (`curve_logs`).

    python tests/simulations/curve_truth.py [--held-out]

draws `FAULTY` logs a diagnosis and `HEALTHY` healthy ones and writes `curve_truth.json`, in a few minutes. Of each
diagnosis it gives

- recall: the share of logs with this fault that get it, at the size of fault that `curve_logs` states;
- precision: of all logs that get it, healthy ones and ones with any fault, the share that have it. A log may have
  another fault as truly: which, is in `Run.allowed` (a rise in the warm-up is an explosion and a rate too high, a
  collapse to ln V is both as well), and a plateau is right wherever the true loss is flat. Such are not counted.
- healthy: the share of healthy logs that get it.

The rules were set on the seed `SEED`; `HELD_OUT` was looked at once, when they were done.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from simulations.curve_logs import FAULTS, Run, healthy, is_flat, logged

from lossprobe.analysis.curve.diagnoses import DIAGNOSES
from lossprobe.analysis.curve.examine import examine

FILE = Path(__file__).with_suffix(".json")
FAULTY, HEALTHY = 300, 2000
SEED, HELD_OUT = 17, 170017


def told(rng: np.random.Generator, run: Run) -> set[str]:
    """Return the diagnoses of the log of a run."""
    return {finding.diagnosis.name for finding in examine(logged(rng, run))}


def simulate(faulty: int, healthy_logs: int, seed: int) -> dict:
    """Return for each diagnosis how often it is right, and for healthy logs how often any fault is told."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    beside: dict[str, Counter[str]] = {name: Counter() for name in FAULTS}
    for number, (name, draw) in enumerate(FAULTS.items()):
        for each in range(faulty):
            rng = np.random.default_rng([seed, number, each])
            run = draw(rng)
            found = told(rng, run)
            right[name] += name in found
            others = found - {name} - run.allowed - ({"plateau"} if is_flat(run) else set())
            wrong.update(others)
            beside[name].update(others)
    alarms, of_healthy = 0, Counter()
    for each in range(healthy_logs):
        rng = np.random.default_rng([seed, len(FAULTS), each])
        run = healthy(rng)
        found = told(rng, run) - ({"plateau"} if is_flat(run) else set())
        of_healthy.update(found)
        alarms += any(DIAGNOSES[name].fault for name in found)
    wrong.update(of_healthy)
    rows = {
        name: {
            "recall": round(right[name] / faulty, 4),
            "precision": round(right[name] / max(1, right[name] + wrong[name]), 4),
            "healthy": round(of_healthy[name] / healthy_logs, 4),
            "logs": faulty,
            "also_told": dict(beside[name].most_common()),
        }
        for name in FAULTS
    }
    return {"healthy_logs": healthy_logs, "healthy_with_alarm": round(alarms / healthy_logs, 4), "diagnoses": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--held-out", action="store_true", help="the seed that the rules were not set on")
    parser.add_argument("--quick", type=int, default=1, help="draw so many times fewer logs, and write nothing")
    options = parser.parse_args()
    started = time.process_time()
    seed = HELD_OUT if options.held_out else SEED
    found = {"seed": seed} | simulate(FAULTY // options.quick, HEALTHY // options.quick, seed)
    for name, row in found["diagnoses"].items():
        print(f"{name:24} recall {row['recall']:.3f} precision {row['precision']:.3f} healthy {row['healthy']:.4f}",
              row["also_told"] or "")  # fmt: skip
    print(
        f"healthy logs with an alarm: {found['healthy_with_alarm']:.4f}; {time.process_time() - started:.0f} s of CPU"
    )
    if options.quick == 1:
        FILE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
