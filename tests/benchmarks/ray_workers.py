"""Measures the engine of Ray: two workers against one, what a token costs the process that plans, and its memory.

    python tests/benchmarks/ray_workers.py [speed | driver | memory]

speed     tokens a second of one worker and of two, of one thread each, without their start and planning; needs two idle
          cores.
driver    bytes that go out and come back for a token, and how many tokens a second one process can hand out and store,
          with workers that cost nothing.
memory    peak memory of the process that plans and of Ray's driver, for 64 and for 643 parts of the same size.
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

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

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = CheckpointSpec(EXAMPLES / "jargon-plain", LoadOptions())
ROUNDS = 3


def in_parts_of(rows: int) -> None:
    """Let plans be cut into parts of a number of rows."""
    cut = plan.cut_parts
    planning.cut_parts = lambda documents: cut(documents, rows)  # type: ignore[assignment]


def texts(count: int) -> StringSource:
    """Return the first documents of the bundled training text."""
    documents = open_text([EXAMPLES / "jargon-train.jsonl"]).documents()
    return StringSource([document.text for _, document in zip(range(count), documents, strict=False)])


def wider(folder: Path) -> CheckpointSpec:
    """Write the bundled model with random weights of a larger shape: the bundled one costs no more than storing."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(MODEL.path, folder)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, n_embd=384, n_layer=6, n_head=6)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return CheckpointSpec(folder, LoadOptions())


def speed() -> None:
    """Print the tokens a second of one worker and of two."""
    in_parts_of(512)
    with tempfile.TemporaryDirectory() as folder:
        compare_workers(wider(Path(folder, "model")), warm=20, timed=80)


def compare_workers(model: CheckpointSpec, *, warm: int, timed: int) -> None:
    """Print the tokens a second of one worker and of two with a model; `timed` is the number of documents."""
    found = {}
    for workers in (1, 2):
        options = EngineOptions("ray", ray_workers=workers, ray_threads=1)
        with closing(RaySession(options, print)) as session, tempfile.TemporaryDirectory() as folder:
            checkpoint = RayOpener(session).open(model)
            score_into(Path(folder, "warm"), checkpoint, texts(warm))  # every worker has opened the model and compiled
            rates = []
            for turn in range(ROUNDS):
                marks: list[float] = []  # the first one after planning, which is the same for every engine

                def progress(done: int, total: int, marks: list[float] = marks) -> None:
                    marks.append(time.perf_counter())

                run = score_into(Path(folder, str(turn)), checkpoint, texts(timed), progress=progress).run
                rates.append(run.counts["tokens"] / (marks[-1] - marks[0]))
            found[workers] = max(rates)
            print(f"{workers} workers: {', '.join(f'{rate:,.0f}' for rate in rates)} tokens/s", flush=True)
    print(f"two workers are {found[2] / found[1]:.3f} times one")


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
        here = str(Path(__file__).parent)
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r}); {code}"], check=True)


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
    {"speed": speed, "driver": driver, "memory": memory}[(sys.argv[1:] or ["speed"])[0]]()
