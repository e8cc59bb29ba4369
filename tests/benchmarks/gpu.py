"""Measures scoring on an NVIDIA GPU against the bare forward pass, in at most five minutes.

    python tests/benchmarks/gpu.py --out results.jsonl [--wheels FOLDER] [--seconds 290] [--steps kernels,gpt2]

Each result is a line of JSON, written to the file and to stdout as soon as it is there; a step that fails is a line
too, and the next one goes on. Models have random weights, made on the device. Nothing is downloaded: what is not
installed may lie in FOLDER as wheels; without numba or duckdb all steps but `whole` run all the same. `--device cpu
--tiny` tries the program out, with TRITON_INTERPRET=1 the kernels too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

Step = Callable[[dict[str, Any]], None]
ROOT = Path(__file__).resolve().parents[2]
# Steps in the order of what matters if time runs out, with the seconds that each needs at least.
STEPS = {"machine": 5, "kernels": 25, "gpt2": 25, "llama-1b": 30, "llama-8b": 60, "variants": 20, "whole": 40}


class Results:
    """Writes one line of JSON for each result.

    Args:
        file: where the lines go, besides stdout; None for stdout alone.
        seconds: time for all steps.
    """

    def __init__(self, file: Path | None, seconds: float) -> None:
        self._file = file
        self._start = time.monotonic()
        self._seconds = seconds
        if file is not None:
            file.write_text("", "utf-8")

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._seconds - (time.monotonic() - self._start)

    def write(self, step: str, **values: Any) -> None:
        """Write a result of a step."""
        line = json.dumps({"step": step, "at_s": round(time.monotonic() - self._start, 1), **values})
        print(line, flush=True)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(line + "\n")

    @contextmanager
    def step(self, name: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Give a dictionary to fill, and write it at the end of the block, with the error that ended it."""
        found: dict[str, Any] = dict(values)
        start = time.monotonic()
        try:
            yield found
        except Exception as error:  # noqa: BLE001 - whatever fails, the next step has to run
            found["error"] = f"{type(error).__name__}: {error}"[:600]
            found["where"] = traceback.format_exc().splitlines()[-6:]
        self.write(name, seconds=round(time.monotonic() - start, 2), **found)


def main() -> None:
    """Run the steps for which there is time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, help="file of the results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, installed for this process alone")
    parser.add_argument("--seconds", type=float, default=290.0, help="for everything")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the program out")
    given = parser.parse_args()
    results = Results(given.out, given.seconds)
    with tempfile.TemporaryDirectory() as scratch:
        if given.wheels is not None:
            with results.step("wheels") as found:
                found["installed"] = install(given.wheels, Path(scratch) / "site")
        sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
        with results.step("imports") as found:
            found["without"] = stand_in_for_numba()
            steps = steps_of(given, results, Path(scratch))
        if "error" in found:
            return
        for name in given.steps.split(","):
            if results.left() < (1 if given.tiny else STEPS[name]):
                results.write(name, skipped=f"{results.left():.0f} s are left")
                continue
            with results.step(name) as found:
                steps[name](found)
    results.write("done", left_s=round(results.left()))


def install(wheels: Path, folder: Path) -> list[str]:
    """Install wheels without the network into a folder, put it first on the path, and return their names."""
    files = sorted(map(str, wheels.glob("*.whl")))
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *files], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-400:])
    sys.path.insert(0, str(folder))
    return [Path(file).name for file in files]


def stand_in_for_numba() -> str:
    """Where numba cannot be imported, put the torch functions in the place of its loops; return why, or ""."""
    try:
        import lossprobe.scoring.kernels  # noqa: F401
    except Exception as error:  # noqa: BLE001 - a numba that does not suit numpy raises errors of several kinds
        names = ("scoring.ladder_kernels", "scoring.compiled", "checkpoint.model.attention")
        kernels, compiled, attention = (ModuleType(f"lossprobe.{name}") for name in names)
        kernels.OCTAVES = 5  # type: ignore[attr-defined]
        vars(attention).update(
            KIND="", Attention=nullcontext, BlockedAttention=ModuleType, no_change=nullcontext,
            find_attention=lambda *_: nullcontext(),
        )  # fmt: skip
        sys.modules |= {each.__name__: each for each in (kernels, compiled, attention)}
        from lossprobe.scoring.histogram import probability_histogram
        from lossprobe.scoring.ladder import temperature_ladder
        from lossprobe.scoring.statistics import MeasuredRows, row_statistics

        def measure_rows(logits: Any, targets: Any, sampled: Any, bins: Any, workspace: Any) -> MeasuredRows:
            measured, centred = row_statistics(logits, targets, workspace)
            histogram = probability_histogram(centred, targets, bins)
            return MeasuredRows(measured, histogram, temperature_ladder(logits[sampled]))

        vars(compiled).update(measure_rows=measure_rows)
        return f"numba ({type(error).__name__}: {error})"[:200]
    return ""


def steps_of(given: argparse.Namespace, results: Results, scratch: Path) -> dict[str, Step]:
    """Return the steps by name; each fills in a dictionary, or writes lines of its own."""
    import gpu_kernels
    import gpu_models
    from gpu_shapes import SHAPES

    place = gpu_kernels.Place(given.device, given.tiny, results.left)
    steps: dict[str, Step] = {
        "machine": lambda found: gpu_kernels.measure_machine(place, found),
        "kernels": lambda found: gpu_kernels.measure_kernels(place, results.step),
        "variants": lambda found: gpu_kernels.measure_variants(place, results.step),
        "whole": lambda found: gpu_models.measure_whole(place, scratch, found),
    }
    return steps | {name: partial(gpu_models.measure_model, name, place, results.step) for name in SHAPES}


if __name__ == "__main__":
    main()
