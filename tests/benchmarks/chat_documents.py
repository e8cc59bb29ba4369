"""Compares the speed of scoring many short conversations with that of one long document of as many tokens.

    python tests/benchmarks/chat_documents.py [SHAPE] [--dtype bfloat16] [--rounds 5] [--documents 2000] [--folder DIR]

A conversation has two messages and, with its template, 20 to 200 tokens. Both texts are scored in turn in this process,
tokenizing, planning and writing included, after a round that is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from shapes import SHAPES, make_checkpoint, make_text, texts
from tokenizers import Tokenizer

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.options import LoadOptions
from lossprobe.passes.score import score
from lossprobe.plan.options import ScoreOptions
from lossprobe.text.documents import open_text

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}</s>{% endfor %}"
LEAST, MOST = 20, 200  # tokens of a conversation


def make_conversations(file: Path, tokenizer: Tokenizer, count: int) -> Path:
    """Write conversations of `LEAST` to `MOST` tokens, evenly drawn, one a line, and return the file."""
    drawn, ids = random.Random(0), tokenizer.encode(" ".join(texts())).ids
    frame = len(tokenizer.encode("<user></s><assistant></s>").ids)
    at, lines = 0, []
    for _ in range(count):
        size = drawn.randint(LEAST, MOST) - frame
        asked = max(1, size // 3)
        said = [tokenizer.decode(piece) for piece in (ids[at : at + asked], ids[at + asked : at + size])]
        at += size
        messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]
        lines.append(json.dumps({"messages": messages}))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def main() -> None:
    """Measure both texts in turn, and print tokens/s and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", nargs="?", default="llama")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="keep the checkpoint here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = (given.folder or Path(scratch)) / given.shape
        if not (checkpoint / "config.json").is_file():
            make_checkpoint(checkpoint, SHAPES[given.shape])
        compare(given, checkpoint, Path(scratch))


def compare(given: argparse.Namespace, checkpoint: Path, folder: Path) -> None:
    """Score both texts `rounds` times; see `main`."""
    template = folder / "template.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    model = open_checkpoint(checkpoint, LoadOptions(dtype=given.dtype, chat_template=template))
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    chat = make_conversations(folder / "chat.jsonl", tokenizer, given.documents)

    def measure(text: Path, name: str) -> tuple[int, float]:
        start = time.perf_counter()
        run = score(model, open_text(text), ScoreOptions(), output=folder / name, overwrite=True).run
        return int(run.counts["tokens"]), time.perf_counter() - start

    warm = make_conversations(folder / "warm.jsonl", tokenizer, 20)
    tokens = measure(warm, "warm")[0] * given.documents // 20
    long = make_text(folder / "long.txt", checkpoint, tokens)
    measure(make_text(folder / "warm.txt", checkpoint, 2048), "warm-long")
    speeds = []
    for number in range(given.rounds):
        (first, took), (second, other) = measure(chat, f"chat-{number}"), measure(long, f"long-{number}")
        speeds.append((first / took, second / other))
        print(f"{first:,} tokens: {first / took:,.0f} tokens/s; {second:,}: {second / other:,.0f}", flush=True)
    ratios = [short / whole for short, whole in speeds]
    spread = f"{median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
    print(f"{given.documents:,} conversations / one document: {spread}")


if __name__ == "__main__":
    main()
