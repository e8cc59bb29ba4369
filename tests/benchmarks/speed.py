"""Speed of the pass against what a user would write: ratios, tokens/s, peak memory, and where the time goes.

    python tests/benchmarks/speed.py [gpt2 llama char] [--rounds 5] [--seconds 20] [--folder DIR]

Every method runs in this process, one after the other, round after round; a ratio is the median over the rounds of
method / bare forward, so that a machine whose speed drifts shifts both. Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from shapes import SHAPES, Shape, make_checkpoint, make_text
from stages import share_of_stages
from transformers import AutoModelForCausalLM

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.pipeline import ScoreOptions, score
from lossprobe.text.documents import open_text

Method = Callable[[], int]


class Recipes:
    """What users write with transformers alone; each returns how many tokens it was asked about."""

    def __init__(self, checkpoint: Path, ids: torch.Tensor, context: int, batch: int) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        count = len(ids) // context
        self.batches = ids[: count * context].view(count, context).split(batch)
        self.ids, self.context = ids[: count * context], context

    @torch.inference_mode()
    def forward(self) -> int:
        """Body and head, no loss: the bare forward pass."""
        for batch in self.batches:
            self.model(batch, use_cache=False)
        return len(self.ids)

    @torch.inference_mode()
    def body(self) -> int:
        """Body alone."""
        for batch in self.batches:
            self.model.base_model(batch, use_cache=False)
        return len(self.ids)

    @torch.inference_mode()
    def labels(self) -> int:
        """The plain recipe: the mean loss of each batch."""
        for batch in self.batches:
            float(self.model(batch, labels=batch, use_cache=False).loss)
        return len(self.ids)

    @torch.inference_mode()
    def per_token(self) -> int:
        """One loss a token, as a data frame."""
        losses: list[float] = []
        for batch in self.batches:
            logits = self.model(batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            losses += torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none").tolist()
        return len(pd.DataFrame({"loss": losses})) + len(self.batches)

    @torch.inference_mode()
    def statistics(self) -> int:
        """Loss, rank, entropy, varentropy, top choice, margin, log Z and sum of squares, the obvious way."""
        rows = []
        for batch in self.batches:
            z = self.model(batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            target = batch[:, 1:].flatten()[:, None]
            log_p = torch.log_softmax(z, dim=-1)
            p = log_p.exp()
            entropy = -(p * log_p).sum(dim=-1)
            top = z.topk(2, dim=-1)
            rows.append(
                torch.stack(
                    [
                        -log_p.gather(1, target)[:, 0],
                        (z > z.gather(1, target)).sum(dim=-1),
                        entropy,
                        (p * (log_p + entropy[:, None]) ** 2).sum(dim=-1),
                        top.indices[:, 0],
                        p.max(dim=-1).values,
                        top.values[:, 0] - top.values[:, 1],
                        torch.logsumexp(z, dim=-1),
                        -log_p.mean(dim=-1),
                        (p * p).sum(dim=-1),
                    ],
                    dim=1,
                )
            )
        return len(pd.DataFrame(torch.cat(rows).numpy())) + len(self.batches)

    @torch.inference_mode()
    def strided(self) -> int:
        """The documentation's loop at a stride of half a window: every window whole, its second half scored."""
        stride, total = self.context // 2, 0.0
        for start in range(0, len(self.ids) - stride, stride):
            window = self.ids[None, start : start + self.context]
            labels = window.clone()
            labels[:, : -stride if start else 0] = -100
            total += float(self.model(window, labels=labels, use_cache=False).loss)
        return len(self.ids)


class Ours:
    """The pass, whole: tokenizing, planning, scoring, writing; only the model is loaded before."""

    def __init__(self, checkpoint: Path, text: Path, shape: Shape, folder: Path) -> None:
        self.checkpoint, self.text, self.folder, self.shape = open_checkpoint(checkpoint), text, folder, shape
        self.number = 0

    def score(self, stride: int | None = None, checkpoint: Any = None) -> int:
        """Score the text into a new run."""
        self.number += 1
        options = ScoreOptions(batch_size=self.shape.batch, stride=stride)
        run = score(
            checkpoint or self.checkpoint, open_text(self.text), options, output=self.folder / f"run-{self.number}"
        ).run
        return int(run.counts["tokens"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the bare forward in each round")
    parser.add_argument("--methods", default="", help="comma-separated; all of them by default")
    parser.add_argument("--folder", type=Path, help="keep checkpoints and texts here")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.shapes:
            measure_shape(SHAPES[name], (given.folder or Path(scratch)) / name, given)


def measure_shape(shape: Shape, folder: Path, given: argparse.Namespace) -> None:
    """Print one table."""
    context = shape.config.max_position_embeddings
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "config.json").is_file():
        make_checkpoint(checkpoint, shape)
    random = torch.randint(shape.config.vocab_size, (context * shape.batch,))
    trial = Recipes(checkpoint, random, context, shape.batch)
    trial.forward()
    start = time.perf_counter()
    trial.forward()
    speed = len(random) / (time.perf_counter() - start)
    passes = max(2, math.ceil(given.seconds * speed / len(random)))
    text = make_text(folder / f"text-{passes}.txt", checkpoint, passes * len(random))
    ours = Ours(checkpoint, text, shape, Path(tempfile.mkdtemp(dir=folder)))
    ids = torch.from_numpy(ours.checkpoint.tokenizer.encode(text.read_text("utf-8")).ids.astype("int64"))
    recipes = Recipes(checkpoint, ids, context, shape.batch)
    methods: dict[str, Method] = {
        "forward": recipes.forward,
        "score": ours.score,
        "body": recipes.body,
        "labels": recipes.labels,
        "per_token": recipes.per_token,
        "statistics": recipes.statistics,
        "strided": recipes.strided,
        "score, stride": lambda: ours.score(context // 2),
    }
    chosen = {name: methods[name] for name in methods if not given.methods or name in given.methods.split(",")}
    if given.peak:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        methods[given.peak]()
        print(f"peak {before:.0f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
        return
    print(f"\n{shape.name}, context {context}, {shape.batch} windows a batch, {len(ids):,} tokens a round")
    report(chosen, given.rounds)
    print(share_of_stages(ours))


def report(methods: dict[str, Method], rounds: int) -> None:
    """Time the methods in turn and print one line each."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_ in range(rounds + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            tokens = method()
            if round_:  # the first one warms up
                seconds[name].append((time.perf_counter() - start) / tokens)
    print(f"{'method':16} {'tokens/s':>10} {'us/token':>10} {'speed / forward (min..max)':>28}")
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds["forward"], times, strict=True)]
        middle = statistics.median(times)
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
        print(f"{name:16} {1 / middle:10,.0f} {middle * 1e6:10.1f} {spread:>28}", flush=True)


if __name__ == "__main__":
    main()
