"""Compares how `defects` finds near copies of documents with MinHash libraries, in time and in what is found.

    pip install datasketch rensa
    python tests/benchmarks/near_copies.py [DOCUMENTS]

Documents are made of the words of the bundled entries, 40 to 200 each; one in twenty is a copy of an earlier one of
which each word is replaced with a probability of 2 to 14 %. The truth is Jaccard's similarity of the runs of five
words, exact: a copy counts from 0.5 on. Printed are the seconds for all documents, from text to pairs, the share of the
copies that were found, and how many others were told. MinHash has 128 permutations and the same threshold.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.repeats import COPY, RUN, SIMILAR, Repeats

ENTRIES = Path(__file__).parents[2] / "examples" / "jargon-train.jsonl"
WORD = re.compile(r"[a-z0-9]+")
PERMUTATIONS = 128


def documents(count: int) -> tuple[list[str], dict[int, int]]:
    """Return documents, and the number of each copy → that of its original."""
    random = np.random.default_rng(19)
    entries = ENTRIES.read_text("utf-8").splitlines()
    words = np.array(WORD.findall(" ".join(json.loads(line)["text"] for line in entries).lower()))
    made: list[str] = []
    origin = {}
    for number in range(count):
        if number > 20 and random.random() < 0.05:
            origin[number] = int(random.integers(number))
            text = np.array(made[origin[number]].split(" "))
            changed = random.random(len(text)) < random.uniform(0.02, 0.14)
            text[changed] = random.choice(words, int(changed.sum()))
        else:
            text = random.choice(words, int(random.integers(40, 200)))
        made.append(" ".join(text))
    return made, origin


def runs(text: str) -> set[str]:
    """Return the runs of five words."""
    words = WORD.findall(text.lower())
    return {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}


def similarity(one: str, other: str) -> float:
    """Return Jaccard's similarity of the runs of two documents."""
    a, b = runs(one), runs(other)
    return len(a & b) / len(a | b)


def copies(texts: list[str], origin: dict[int, int]) -> set[int]:
    """Return the copies that are similar to an earlier document: their original, or another copy of it or before it."""
    families: dict[int, list[int]] = {}
    found = set()
    for number in sorted(origin):
        root = number
        while root in origin:
            root = origin[root]
        family = families.setdefault(root, [root])
        if any(similarity(texts[number], texts[other]) >= SIMILAR for other in family):
            found.add(number)
        family.append(number)
    return found


def of_lossprobe(texts: list[str]) -> set[int]:
    """Return the documents that are told as copies."""
    repeats = Repeats()
    for number, text in enumerate(texts):
        repeats.add(TextPage(number, text.encode()))
    return {document for document, places in repeats.found().items()
            if any(place.cause == COPY and "copy of a document" in place.detail for place in places)}  # fmt: skip


def of_datasketch(texts: list[str]) -> set[int]:
    """Return the documents for which the index has an earlier one."""
    from datasketch import MinHash, MinHashLSH

    index, told = MinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS), set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([run.encode() for run in runs(text)])
        if index.query(sketch):
            told.add(number)
        index.insert(number, sketch)
    return told


def of_rensa(texts: list[str]) -> set[int]:
    """Return the documents for which the index has an earlier one."""
    from rensa import RMinHash, RMinHashLSH

    index, told = RMinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS, num_bands=32), set()
    for number, text in enumerate(texts):
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=19)
        sketch.update(list(runs(text)))
        if index.query(sketch):
            told.add(number)
        index.insert(number, sketch)
    return told


def main() -> int:
    """Print a line for each way."""
    texts, origin = documents(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
    true = copies(texts, origin)
    print(f"{len(texts)} documents, {len(true)} copies with a similarity of {SIMILAR} or more to an earlier one")
    ways: dict[str, Callable[[list[str]], set[int]]] = {
        "lossprobe": of_lossprobe, "datasketch": of_datasketch, "rensa": of_rensa,
    }  # fmt: skip
    for name, way in ways.items():
        start = time.process_time()
        try:
            told = way(texts)
        except ImportError:
            print(f"{name:12} is not installed")
            continue
        seconds = time.process_time() - start
        print(f"{name:12} {seconds:6.1f} s  recall {len(told & true) / len(true):.3f}  others {len(told - true)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
