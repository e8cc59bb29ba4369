"""Compares the speed of scoring with recipes that a user would write: ratios, tokens/s, peak memory, shares of stages.

    python tests/benchmarks/speed.py [gpt2 llama char] [--dtype bfloat16] [--rounds 5] [--seconds 20] [--folder DIR]

All methods run in this process in turn, for several rounds. A ratio is the median over the rounds of the speed of a
method over that of the bare forward pass, so that a drift of the machine's speed cancels. Peak memory is measured in a
process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from memory import in_own_process, rise_of
from shapes import SHAPES, Shape, make_checkpoint, make_text
from stages import share_of_stages
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from lossprobe.allocation import settle_memory
from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text

Method = Callable[[], int]
RECIPES = ("forward", "body", "labels", "per_token", "statistics", "strided")


class Recipes:
    """Recipes that users write with transformers alone; each returns how many tokens it processed."""

    def __init__(self, checkpoint: Path, ids: torch.Tensor, context: int, batch: int, dtype: str) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()
        count = len(ids) // context
        self.batches = ids[: count * context].view(count, context).split(batch)
        self.ids, self.context = ids[: count * context], context

    @torch.inference_mode()
    def forward(self) -> int:
        """Run body and head without a loss: the bare forward pass."""
        for batch in self.batches:
            self.model(batch, use_cache=False)
        return len(self.ids)

    @torch.inference_mode()
    def body(self) -> int:
        """Run the body alone."""
        for batch in self.batches:
            self.model.base_model(batch, use_cache=False)
        return len(self.ids)

    @torch.inference_mode()
    def labels(self) -> int:
        """Compute the mean loss of each batch."""
        for batch in self.batches:
            float(self.model(batch, labels=batch, use_cache=False).loss)
        return len(self.ids)

    @torch.inference_mode()
    def per_token(self) -> int:
        """Compute the loss of each token, as a data frame."""
        losses: list[float] = []
        for batch in self.batches:
            logits = self.model(batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            losses += torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none").tolist()
        return len(pd.DataFrame({"loss": losses})) + len(self.batches)

    @torch.inference_mode()
    def statistics(self) -> int:
        """Compute loss, rank, entropy, varentropy, top choice, margin, log Z and Σ p² with plain torch operations."""
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
        """Run the loop of transformers' documentation with a stride of half a window."""
        stride, total = self.context // 2, 0.0
        for start in range(0, len(self.ids) - stride, stride):
            window = self.ids[None, start : start + self.context]
            labels = window.clone()
            labels[:, : -stride if start else 0] = -100
            total += float(self.model(window, labels=labels, use_cache=False).loss)
        return len(self.ids)


class Ours:
    """Scoring by lossprobe: tokenizing, planning, scoring and writing; the model is loaded before."""

    def __init__(self, checkpoint: Path, text: Path, shape: Shape, dtype: str) -> None:
        self.checkpoint, self.text, self.shape = open_checkpoint(checkpoint, LoadOptions(dtype=dtype)), text, shape
        self.folder = Path(tempfile.mkdtemp(dir=text.parent))
        self.number = 0

    def score(self, stride: int | None = None, checkpoint: Any = None) -> int:
        """Score the text into a new run."""
        self.number += 1
        options = ScoreOptions(batch_size=self.shape.batch, stride=stride)
        run = score(
            checkpoint or self.checkpoint, open_text(self.text), options, output=self.folder / f"run-{self.number}"
        ).run
        return int(run.counts["tokens"])


class LmEval:
    """Scoring by lm-evaluation-harness in this process, if it is installed."""

    def __init__(self, checkpoint: Path, recipes: Recipes, text: Path) -> None:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
        tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
        self.model = HFLM(pretrained=recipes.model, tokenizer=tokenizer, max_length=recipes.context, batch_size=1)
        arguments = (text.read_text("utf-8"),)
        self.requests = [Instance(request_type="loglikelihood_rolling", doc={}, arguments=arguments, idx=0)]
        self.tokens = len(recipes.ids)

    def rolling(self) -> int:
        """Compute the log-likelihood of the whole text in windows that do not overlap."""
        self.model.loglikelihood_rolling(self.requests, disable_tqdm=True)
        return self.tokens


def main() -> None:
    """Measure each shape and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shapes", nargs="*", default=["gpt2", "llama", "char"])
    parser.add_argument("--dtype", default="float32", help="of the forward pass, for every method")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the bare forward in each round")
    parser.add_argument("--methods", default="", help="comma-separated; all of them by default")
    parser.add_argument("--folder", type=Path, help="keep checkpoints and texts here")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    settle_memory()  # as the command does; the bare pass in the same process gains by it too
    if not given.peak:
        cpus, threads = os.cpu_count(), torch.get_num_threads()
        print(f"{platform.machine()}, {cpus} CPUs, {threads} threads, torch {torch.__version__}, {peak_of_products()}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.shapes:
            given.folder = given.folder or Path(scratch)
            measure_shape(name, given)


def peak_of_products() -> str:
    """Return the speed of this machine's float32 matrix products, as a phrase."""
    size, best = 2048, math.inf
    left, right = torch.randn(size, size), torch.randn(size, size)
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return f"matrix products at {2 * size**3 / best / 1e9:.0f} GFLOP/s"


def measure_shape(name: str, given: argparse.Namespace) -> None:
    """Measure all methods on one shape and print a table; with --peak, print only the memory of one method."""
    shape, folder = SHAPES[name], given.folder / name
    context, checkpoint = shape.config.max_position_embeddings, folder / "checkpoint"
    if not (checkpoint / "config.json").is_file():
        make_checkpoint(checkpoint, shape)
    passes = 4 if given.peak else passes_for(given.seconds, checkpoint, shape, given.dtype)
    text = make_text(folder / f"text-{passes}.txt", checkpoint, passes * context * shape.batch)
    if given.peak:
        print(json.dumps(rise_of(methods_of(given.peak, checkpoint, text, shape, given.dtype)[given.peak])))
        return
    methods = methods_of(given.methods, checkpoint, text, shape, given.dtype)
    tokens = methods["forward"]()
    print(f"\n{shape.name}, {given.dtype}, context {context}, {shape.batch} windows a batch, {tokens:,} tokens a round")
    own = [str(Path(__file__)), name, "--dtype", given.dtype, "--folder", str(given.folder), "--peak"]
    report(methods, given.rounds, own)
    print(share_of_stages(Ours(checkpoint, text, shape, given.dtype)))


def passes_for(seconds: float, checkpoint: Path, shape: Shape, dtype: str) -> int:
    """Return the number of forward passes that take at least `seconds`."""
    context = shape.config.max_position_embeddings
    ids = torch.randint(shape.config.vocab_size, (context * shape.batch,))
    trial = Recipes(checkpoint, ids, context, shape.batch, dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        trial.forward()
        times.append(time.perf_counter() - start)
    return max(2, math.ceil(seconds / min(times)))


def methods_of(chosen: str, checkpoint: Path, text: Path, shape: Shape, dtype: str) -> dict[str, Method]:
    """Return the methods named in `chosen` (comma-separated), or all that are installed; load only what they need."""
    names = [name for name in chosen.split(",") if name]
    methods: dict[str, Method] = {}
    context = shape.config.max_position_embeddings
    if names != ["score"]:
        encoded = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text.read_text("utf-8"))
        recipes = Recipes(checkpoint, torch.tensor(encoded.ids), context, shape.batch, dtype)
        methods |= {name: getattr(recipes, name) for name in RECIPES}
        if importlib.util.find_spec("lm_eval") and (not names or "lm_eval" in names):
            methods["lm_eval"] = LmEval(checkpoint, recipes, text).rolling
    if not names or names[0].startswith("score") or len(names) > 1:
        ours = Ours(checkpoint, text, shape, dtype)
        methods |= {"score": ours.score, "score_stride": lambda: ours.score(context // 2)}
    return {name: methods[name] for name in names or methods}


def report(methods: dict[str, Method], rounds: int, peak: list[str]) -> None:
    """Time the methods in turn and print a line for each.

    Args:
        methods: the methods by name.
        rounds: timed rounds, after one round of warm-up.
        peak: arguments of a Python program that prints the peak memory of the method named last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_ in range(rounds + 1):
        for name, method in methods.items():
            start = time.perf_counter()
            tokens = method()
            if round_:  # the first round is warm-up
                seconds[name].append((time.perf_counter() - start) / tokens)
    print(
        f"{'method':13} {'tokens/s':>9} {'us/token':>9} {'speed / forward (min..max)':>27} {'MB above the model':>19}"
    )
    for name, times in seconds.items():
        ratios = [base / own for base, own in zip(seconds["forward"], times, strict=True)]
        middle = statistics.median(times)
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
        rise = float(in_own_process(*peak, name))
        print(f"{name:13} {1 / middle:9,.0f} {middle * 1e6:9.1f} {spread:>27} {rise:19.0f}", flush=True)


if __name__ == "__main__":
    main()
