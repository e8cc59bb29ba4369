"""Measures time and memory of scoring from 10^4 to 10^7 tokens, in many documents or in a single one.

    python tests/benchmarks/scale.py [10000 100000 1000000 10000000] [--single] [--folder DIR]

The model is tiny, so that tokenizing, planning, statistics and writing take most of the time. Every size is scored in a
process of its own; its memory is the peak above that with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from memory import in_own_process, rise_of
from shapes import TINY, make_checkpoint, texts
from tokenizers import Tokenizer

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.passes.score import score
from lossprobe.text.documents import open_text

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--single", action="store_true", help="one document, instead of as many as there are")
    parser.add_argument("--folder", type=Path, help="keep the checkpoint and the texts here")
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.score:
        measure(given.score, given.folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not (folder / "tiny" / "config.json").is_file():
            make_checkpoint(folder / "tiny", TINY)
        print(f"{'tokens':>12} {'MB of text':>10} {'us/token':>9} {'MB above the model':>19}")
        for size in given.sizes:
            text = write_text(folder, size, single=given.single)
            seconds, rise, tokens = json.loads(in_own_process(__file__, "--score", str(text), "--folder", str(folder)))
            print(
                f"{tokens:12,} {text.stat().st_size / 1e6:10.1f} {seconds / tokens * 1e6:9.2f} {rise:19.0f}", flush=True
            )
            text.unlink()


def write_text(folder: Path, tokens: int, *, single: bool) -> Path:
    """Write the bundled text repeatedly until the file has at least `tokens` tokens, and return the file."""
    pieces = texts()
    counts = [
        len(each.ids) for each in Tokenizer.from_file(str(folder / "tiny" / "tokenizer.json")).encode_batch(pieces)
    ]
    file = folder / (f"scale-{tokens}.txt" if single else f"scale-{tokens}.jsonl")
    with file.open("w", encoding="utf-8") as out:
        written = index = 0
        while written < tokens:
            piece = pieces[index % len(pieces)]
            out.write(piece + "\n\n" if single else json.dumps({"text": piece}) + "\n")
            written += counts[index % len(pieces)]
            index += 1
    return file


def measure(text: Path, folder: Path) -> None:
    """Score a text, after a short one as warm-up, and print seconds, MB and tokens as JSON."""
    checkpoint = open_checkpoint(folder / "tiny")
    short = folder / "warm.txt"
    short.write_text(texts()[0], encoding="utf-8")
    with tempfile.TemporaryDirectory() as runs:
        score(checkpoint, open_text(short), output=Path(runs) / "warm")
        start = time.perf_counter()
        tokens: list[int] = []
        rise = rise_of(
            lambda: tokens.append(score(checkpoint, open_text(text), output=Path(runs) / "run").run.counts["tokens"])
        )
        print(json.dumps([time.perf_counter() - start, rise, tokens[0]]))


if __name__ == "__main__":
    main()
