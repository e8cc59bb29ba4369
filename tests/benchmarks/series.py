"""Measures `lossprobe series`: what a series of passes costs beside single ones, and its views on millions of tokens.

    python tests/benchmarks/series.py pass [--checkpoints 8]           # against the same checkpoints scored one by one
    python tests/benchmarks/series.py views RUN... [--rows 10000000]   # seconds and peak memory of each view
    python tests/benchmarks/series.py views RUN... --view "--by class"

`pass` makes checkpoints of one model with different weights, scores each as `lossprobe score` does and then all of them
as a series, in one process and with everything loaded; it prints both in seconds of CPU and of the clock, and their
ratio. `views` repeats the rows of small runs of one text, one for each checkpoint, until each has ROWS: twelve runs of
10^7 rows take 6 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from large_run import repeat
from memory import peak_of
from shapes import TINY, make_checkpoint, make_text

from lossprobe.analysis.rows.same_tokens import refuse_different
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.passes.known_checkpoint import open_when_needed
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.score import score
from lossprobe.passes.series import SeriesModels, score_series
from lossprobe.plan.options import ScoreOptions
from lossprobe.run.reader import open_run
from lossprobe.text.documents import open_text
from lossprobe.text.options import TextOptions

PASS_TOKENS = 60_000
VIEWS = (
    "--csv", "--json", "--plot --csv", "--state forgotten --csv", "--by type --csv", "--by document --csv",
    "--by context --csv", "--by class --csv", "--by frequency --csv",
)  # fmt: skip


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("pass", "views"))
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--checkpoints", type=int, default=8)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--view", action="append", help="options of the command; all views without it")
    given = parser.parse_args()
    if given.what == "pass":
        measure_passes(given.checkpoints)
    else:
        measure_views(given.runs, given.rows, given.view or VIEWS)


def measure_views(sources: Sequence[Path], rows: int, views: Sequence[str]) -> None:
    """Print seconds and peak memory of views of a series of runs that are repeated until each has ROWS rows."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runs = [repeat(open_run(source), folder / f"step-{at}", rows) for at, source in enumerate(sources, 1)]
        counts = runs[0].counts
        print(f"{len(runs)} checkpoints of {counts['tokens']:,} tokens, {counts['documents']:,} documents", flush=True)
        for view in views:
            command = [sys.executable, "-m", "lossprobe", "series", *[str(run.path) for run in runs], *view.split()]
            seconds, megabytes = peak_of(command, folder)
            print(f"series {view:24} {seconds:7.1f} s {megabytes:8.0f} MB", flush=True)


def measure_passes(count: int) -> None:
    """Print what the passes of a series cost, and what its checkpoints cost one by one."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoints = [make_variant(folder / f"checkpoint-{10 * (index + 1)}", index) for index in range(count)]
        text = make_text(folder / "text.txt", checkpoints[0], PASS_TOKENS)
        work_in(folder / "warm", lambda: score_one(checkpoints[0], text))  # compiles, and loads the libraries
        single = [work_in(folder / "single", lambda path=path: score_one(path, text)) for path in checkpoints]
        whole = work_in(folder / "series", lambda: score_all(checkpoints, text))
        for index, name in enumerate(("CPU", "clock")):
            alone = sum(each[index] for each in single)
            ratio = whole[index] / alone
            print(f"{name:5}: one by one {alone:6.2f} s, as a series {whole[index]:6.2f} s, ratio {ratio:.3f}")


def make_variant(folder: Path, seed: int) -> Path:
    """Write the tiny model with weights that are scaled by a number of their own."""
    from safetensors.torch import load_file, save_file

    make_checkpoint(folder, TINY)
    weights = load_file(folder / "model.safetensors")
    scaled = {name: tensor * (1.0 + 0.01 * seed) for name, tensor in weights.items()}
    save_file(scaled, folder / "model.safetensors", {"format": "pt"})
    return folder


def score_one(path: Path, text: Path) -> None:
    """Score a checkpoint on a text, as `lossprobe score` does."""
    source = KnownText(open_text([text], TextOptions()))
    assert not score(open_when_needed(CheckpointSpec(path, LoadOptions()), Opener()), source).reused


def score_all(paths: list[Path], text: Path) -> None:
    """Score checkpoints on a text, as `lossprobe series` does."""
    opener = Opener(keep=len(paths))
    source = KnownText(open_text([text], TextOptions()))
    models = SeriesModels(
        paths, {}, lambda path: open_when_needed(CheckpointSpec(path, LoadOptions()), opener), together=True
    )
    found = score_series(models, source, ScoreOptions(), refuse_different)
    assert not any(result.reused for result in found)


def work_in(place: Path, work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds of CPU and of the clock that a function takes in a working folder."""
    place.mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(place)
    try:
        cpu, clock = time.process_time(), time.perf_counter()
        work()
        return time.process_time() - cpu, time.perf_counter() - clock
    finally:
        os.chdir(before)


if __name__ == "__main__":
    main()
