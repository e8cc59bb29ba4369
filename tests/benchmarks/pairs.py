"""Measures what is saved by running the prompt of each pair once, instead of with each of its sides.

    python tests/benchmarks/pairs.py [--layers 12] [--pairs 32] [--tokens 100] [--rounds 5]

The model has GPT-2's shape and random weights. Half of each side is prompt; lengths vary by half around `--tokens`. All
ways run in this process in turn. Times are CPU seconds, so that other programs of the machine count little; a ratio is
the median over the rounds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from shapes import SHAPES, make_checkpoint, texts
from transformers import GPT2Config

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.interface import Checkpoint, SharedPrefix, prefix_of
from lossprobe.passes.engines import LocalEngine
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.rendered import both_sides
from lossprobe.passes.score import score_into
from lossprobe.text.documents import open_text

ONCE, MASKED, ALL = "prompt once", "both sides whole, prompts masked", "both sides whole, all tokens scored"


def main() -> None:
    """Measure each way and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=100, help="of each prompt, and of each answer, on average")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shape = replace(SHAPES["gpt2"], config=GPT2Config(n_layer=given.layers, bos_token_id=0, eos_token_id=0))
        checkpoint = open_checkpoint(make_checkpoint(folder / "model", shape))
        write_pairs(folder / "pairs.jsonl", checkpoint, given.pairs, given.tokens)
        prefix = prefix_of(checkpoint)
        seconds: dict[str, list[float]] = {ONCE: [], MASKED: [], ALL: []}
        for number in range(given.rounds + 1):  # the first round warms up
            for way, taken in seconds.items():
                start = time.process_time()
                score_pairs(folder / f"{number} {way}", checkpoint, prefix if way == ONCE else None, way)
                taken.append(time.process_time() - start)
    print(f"{given.layers} layers, {given.pairs} pairs, {given.rounds} rounds")
    for way, taken in seconds.items():
        ratios = [once / other for once, other in zip(seconds[ONCE][1:], taken[1:], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{way:36} {statistics.median(taken[1:]):7.2f} s; prompt once / this {ratio}")


def write_pairs(file: Path, checkpoint: Checkpoint, count: int, mean: int) -> None:
    """Write pairs whose prompts and answers have from 0.5 to 1.5 times `mean` tokens of the bundled text."""
    draw, words = random.Random(0), " ".join(texts()).split(" ")
    tokens_a_word = len(checkpoint.tokenizer.encode(" ".join(words[:10_000])).ids) / 10_000

    def text() -> str:
        size = int(draw.uniform(0.5, 1.5) * mean / tokens_a_word)
        start = draw.randrange(len(words) - size)
        return " ".join(words[start : start + size])

    with file.open("w", encoding="utf-8") as out:
        for _ in range(count):
            pair = {"prompt": text() + "\n", "chosen": text(), "rejected": text()}
            out.write(json.dumps(pair) + "\n")


def score_pairs(run: Path, checkpoint: Checkpoint, prefix: SharedPrefix | None, way: str) -> None:
    """Score the pairs beside a run in one of the ways into this run."""
    text = KnownText(open_text(run.parent / "pairs.jsonl"))
    sides = both_sides(text, checkpoint, "all" if way == ALL else "auto")
    score_into(run, checkpoint, sides, engine=LocalEngine(checkpoint, prefix))


if __name__ == "__main__":
    main()
