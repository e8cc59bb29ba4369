"""Measures the engine of Ray: two workers against one, what a token costs the process that plans, and its memory.

    python tests/benchmarks/ray_workers.py [speed [11M | 85M] | driver | memory]

speed     tokens a second of one worker and of two, of one thread each, from when each worker's first part is stored to
          the end, with a model of so many parameters (85M is the body of GPT-2, and the default); needs two idle cores
          for about 8 minutes. And how many times one process two processes without Ray are, each with the
          same text and one thread: that is what the machine allows, on which more than the workers runs with Ray.
driver    bytes that go out and come back for a token, and how many tokens a second one process can hand out and store,
          with workers that cost nothing.
memory    peak memory of the process that plans and of Ray's driver, for 64 and for 643 parts of the same size.
"""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lossprobe.checkpoint.interface import Checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec, Opener
from lossprobe.passes import planning
from lossprobe.passes.engine_options import EngineOptions
from lossprobe.passes.engines import LocalEngine
from lossprobe.passes.ray.opener import RayOpener
from lossprobe.passes.ray.session import RaySession
from lossprobe.passes.score import score_into
from lossprobe.plan import rows as plan
from lossprobe.text.documents import StringSource, open_text

HERE, ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODEL = CheckpointSpec(EXAMPLES / "jargon-plain", LoadOptions())
ROUNDS = 3


class Shape(NamedTuple):
    """A model, and how much text it takes: 50 parts or more, so that a worker without one at the end counts little."""

    width: int
    layers: int
    heads: int
    warm: int  # documents before the time counts; a second worker needs 5 s until it takes part
    timed: int  # documents
    part_rows: int


SHAPES = {"11M": Shape(384, 6, 6, 300, 1900, 8192), "85M": Shape(768, 12, 12, 60, 160, 512)}


def in_parts_of(rows: int) -> None:
    """Let plans be cut into parts of a number of rows."""
    cut = plan.cut_parts
    planning.cut_parts = lambda documents: cut(documents, rows)  # type: ignore[assignment]


def texts(count: int) -> StringSource:
    """Return the first documents of the bundled training text."""
    documents = open_text([EXAMPLES / "jargon-train.jsonl"]).documents()
    return StringSource([document.text for _, document in zip(range(count), documents, strict=False)])


def wider(folder: Path, shape: Shape) -> CheckpointSpec:
    """Write the bundled model with random weights of a larger shape: the bundled one costs no more than storing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(MODEL.path, folder)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, n_embd=shape.width, n_layer=shape.layers, n_head=shape.heads)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return CheckpointSpec(folder, LoadOptions())


def speed(name: str = "85M") -> None:
    """Print the tokens a second of one worker and of two, and how far two processes without Ray come."""
    shape = SHAPES[name]
    in_parts_of(shape.part_rows)
    with tempfile.TemporaryDirectory() as folder:
        model = wider(Path(folder, "model"), shape)
        print(f"two processes without Ray are {_processes(model.path, name):.3f} times one", flush=True)
        ratios = []
        for _ in range(ROUNDS):
            one, two = (_of_workers(model, shape, workers) for workers in (1, 2))
            ratios.append(two / one)
            print(f"1 worker {one:,.0f}, 2 workers {two:,.0f} tokens/s: {two / one:.3f} times", flush=True)
    print(f"two workers are {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) times one")


def _of_workers(model: CheckpointSpec, shape: Shape, workers: int) -> float:
    """Return the tokens a second of some workers of a Ray of their own."""
    options = EngineOptions("ray", ray_workers=workers, ray_threads=1)
    with closing(RaySession(options, print)) as session, tempfile.TemporaryDirectory() as folder:
        checkpoint = RayOpener(session).open(model)
        score_into(Path(folder, "warm"), checkpoint, texts(shape.warm))  # every worker has opened and compiled
        return _rate(checkpoint, Path(folder, "timed"), shape, workers)


def _rate(checkpoint: Checkpoint, output: Path, shape: Shape, workers: int = 1) -> float:
    """Return the tokens a second of a pass, from when every worker's first part is stored to the end."""
    marks: list[tuple[float, int]] = []

    def progress(done: int, total: int) -> None:
        if done and (not marks or done != marks[-1][1]):
            marks.append((time.perf_counter(), done))

    score_into(output, checkpoint, texts(shape.timed), progress=progress)
    (begun, before), (ended, after) = marks[workers - 1], marks[-1]
    return (after - before) / (ended - begun)


def _processes(model: Path, name: str) -> float:
    """Return how many times the tokens a second of one process without Ray two at once reach."""
    code = "import sys; import ray_workers; ray_workers.score_alone(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(model), name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    rates = []
    for count in (1, 2):
        running = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=environment,
            )
            for _ in range(count)
        ]  # fmt: skip
        assert all(process.stdout is not None and process.stdout.readline() for process in running)  # they are warm
        for process in running:
            assert process.stdin is not None
            process.stdin.write("begin\n")
            process.stdin.flush()
        rates.append(sum(float(process.communicate()[0]) for process in running))
    return rates[1] / rates[0]


def score_alone(model: str, name: str) -> None:
    """Open and warm a model, wait for a line, and print the tokens a second of a pass."""
    shape = SHAPES[name]
    in_parts_of(shape.part_rows)
    checkpoint = Opener().open(CheckpointSpec(Path(model), LoadOptions()))
    with tempfile.TemporaryDirectory() as folder:
        score_into(Path(folder, "warm"), checkpoint, texts(shape.warm))
        print("warm", flush=True)
        sys.stdin.readline()
        print(_rate(checkpoint, Path(folder, "timed"), shape), flush=True)


class _Costless:
    """An engine whose parts go through pickle as they do to workers and back, and whose scores are there already."""

    def __init__(self, scores: list[bytes]) -> None:
        self._scores = scores
        self.out = self.back = self.rows = 0
        self.pickling = 0.0

    def score(self, parts, options, advance):
        for number, part in enumerate(parts):
            begun = time.perf_counter()
            self.out += len(pickle.dumps(part, pickle.HIGHEST_PROTOCOL))
            content = self._scores[number % len(self._scores)]
            self.back += len(content)
            self.rows += int(part.rows.own.sum())
            scores = pickle.loads(content)
            self.pickling += time.perf_counter() - begun
            yield part, scores


class _Kept(LocalEngine):
    """The engine of this process, which also keeps all scores, pickled."""

    kept: list[bytes] = []  # noqa: RUF012

    def score(self, parts, options, advance):
        for part, scores in super().score(parts, options, advance):
            self.kept.append(pickle.dumps(scores, pickle.HIGHEST_PROTOCOL))
            yield part, scores


def driver() -> None:
    """Print the bytes of a token, and the tokens a second that the process that plans can hand out and store."""
    checkpoint = Opener().open(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        engine = _Kept(checkpoint)
        score_into(Path(folder, "local"), checkpoint, texts(500), engine=engine)
        costless = _Costless(engine.kept)
        spent = time.process_time()
        begun = time.perf_counter()
        marks: list[float] = []

        def progress(done: int, total: int) -> None:
            marks.append(time.perf_counter())

        run = score_into(Path(folder, "again"), checkpoint, texts(500), engine=costless, progress=progress).run
        tokens = run.counts["tokens"]
        stored = marks[-1] - marks[0]
        print(f"{tokens:,} tokens in {len(run.manifest['files'])} files")
        print(f"out {costless.out / costless.rows:.1f} bytes a token, back {costless.back / costless.rows:.1f}")
        print(
            f"hand out and store: {tokens / stored:,.0f} tokens/s, of which pickling {costless.pickling / stored:.0%}"
        )
        print(f"the whole pass, planning too: {tokens / (time.perf_counter() - begun):,.0f} tokens/s")
        print(f"processor time of the pass {1e6 * (time.process_time() - spent) / tokens:.1f} µs a token")


def memory() -> None:
    """Print the peak memory of the two processes of the driver's side for few and for many parts."""
    for documents in (100, 1000):
        code = f"import ray_workers; ray_workers.score_and_tell({documents})"
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r}); {code}"], check=True)


def score_and_tell(documents: int) -> None:
    """Score documents in parts of 256 rows with two workers, and print the peak memory of both processes."""
    in_parts_of(256)
    with closing(RaySession(EngineOptions("ray", ray_workers=2, ray_threads=1), print)) as session:
        checkpoint = RayOpener(session).open(MODEL)
        with tempfile.TemporaryDirectory() as folder:
            run = score_into(Path(folder, "run"), checkpoint, texts(documents)).run
            parts = len(list((run.path / "tokens").iterdir()))
        assert session._process is not None
        peaks = [_peak(Path("/proc/self/status")), _peak(Path(f"/proc/{session._process.pid}/status"))]
        print(f"{parts:,} parts: {peaks[0]:.1f} MiB in the process that plans, {peaks[1]:.1f} MiB in Ray's driver")


def _peak(status: Path) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    what, *shape_name = sys.argv[1:] or ["speed"]
    {"speed": speed, "driver": driver, "memory": memory}[what](*shape_name)
