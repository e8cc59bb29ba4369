"""How often rules speak of texts without a fault, and of texts with one.

Every token of a clean text is drawn from what the model predicts, so that the model is calibrated; its loss falls a
little with the first tokens of context, and is the same in all classes, documents and files. Each number that a rule
looks at has its true value on the right side of the threshold. A faulty text has one fault, of a known size.

    python tests/simulations/findings_truth.py [CASE…]

draws `CLEAN_RUNS` texts of each clean case and `FAULTY_RUNS` of each faulty one, in some fifteen minutes of processor
time, and writes `findings_truth.json`: per case the texts drawn, and how many had a finding of each rule.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script is started without pytest's path

from drawn_runs import document_numbers, draw_logits, draw_targets, smoothed_logits, tempered_logits, write_drawn

from lossprobe.analysis.findings.findings import find_findings

FILE = Path(__file__).with_suffix(".json")
CLEAN_RUNS, FAULTY_RUNS = 60, 10
VOCABULARY, CONTEXT = 64, 256
START = 0.4  # logits after one token of context are this much flatter, after t tokens START / t
LIKENESS = 0.3  # standard deviation of the log of a document's scale, where documents are unlike
NOISE = 0.1  # standard deviation of the logits of two models that know the same
ODD, PLAIN, NEWLINE = range(48, 56), range(56), range(60, 62)  # ids of characters beyond ASCII, of others, of line ends
PIECES = [
    *(b" w%d" % place for place in range(48)), *("éèêëàâîï"[place].encode() for place in range(8)),
    b" 7", b" 8", b"1", b"2", b"\n", b"\r\n", b".", b",",
]  # fmt: skip


@dataclass(frozen=True)
class Text:
    """The truth of a text: logits [N, V], targets and documents [N], and the place of each row in its document."""

    logits: np.ndarray
    targets: np.ndarray
    documents: np.ndarray
    place: np.ndarray


def draw_text(rng, tokens: int, documents: int, spread: float = 0.0) -> Text:
    """Return a clean text; `spread` makes documents unlike."""
    numbers = document_numbers(rng, tokens, documents)
    sizes = np.bincount(numbers)
    place = np.arange(len(numbers)) - np.repeat(sizes.cumsum() - sizes, sizes)
    scale = np.exp(spread * rng.standard_normal(documents))[numbers] * (1.0 - START / (1.0 + place % CONTEXT))
    logits = draw_logits(rng, len(numbers), VOCABULARY) * scale[:, None]
    return Text(logits, draw_targets(rng, logits), numbers, place)


def told(folder: Path, *models: np.ndarray, text: Text) -> set[str]:
    """Return the rules that speak of a text under one model, or of the comparison of two alone."""
    runs = [
        write_drawn(folder / str(place), logits, text.targets, text.documents, context=CONTEXT, name=f"model {place}",
                    vocabulary=PIECES, sample_every=4).run
        for place, logits in enumerate(models)
    ]  # fmt: skip
    found = find_findings(runs)
    return {each.id for each in found.findings if len(runs) == 1 or each.view == "compare"}


def _alone(tokens: int, documents: int, spread: float = 0.0) -> Callable[[np.random.Generator, Path], set[str]]:
    def draw(rng, folder):
        text = draw_text(rng, tokens, documents, spread)
        return told(folder, text.logits, text=text)

    return draw


def _two(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 4000, 40)
    noisy = [text.logits + NOISE * rng.standard_normal(text.logits.shape) for _ in range(2)]
    return told(folder, *noisy, text=text)


def _tempered(temperature: float) -> Callable[[np.random.Generator, Path], set[str]]:
    def draw(rng, folder):
        text = draw_text(rng, 6000, 60)
        return told(folder, tempered_logits(text.logits, temperature), text=text)

    return draw


def _smoothed(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 6000, 60)
    return told(folder, smoothed_logits(text.logits, 0.1), text=text)


def _unknown(rows: Callable[[Text], np.ndarray], by: float) -> Callable[[np.random.Generator, Path], set[str]]:
    """Return what draws a text in whose chosen rows the token's own logit is too low by some nats."""

    def draw(rng, folder):
        text = draw_text(rng, 6000, 60)
        logits, chosen = text.logits.copy(), rows(text)
        logits[np.flatnonzero(chosen), text.targets[chosen]] -= by
        return told(folder, logits, text=text)

    return draw


def _worse(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 4000, 40)
    return told(folder, text.logits, tempered_logits(text.logits, 2.0), text=text)


CLEAN = {
    "40 documents, 4,000 tokens": _alone(4000, 40),
    "40 unlike documents, 4,000 tokens": _alone(4000, 40, LIKENESS),
    "5 documents, 2,000 tokens": _alone(2000, 5),
    "one document, 12,400 tokens": _alone(12_400, 1),
    "two models that know the same": _two,
}
FAULTY = {
    "over-confident, T = 0.6": (_tempered(0.6), "expects-less-loss"),
    "under-confident, T = 1.5": (_tempered(1.5), "expects-more-loss"),
    "smoothed by ε = 0.1": (_smoothed, "expects-more-loss"),
    "characters beyond ASCII 6 nats harder": (_unknown(lambda text: np.isin(text.targets, ODD), 6.0), "hard-class"),
    "the first 31 tokens 1 nat harder": (_unknown(lambda text: text.place < 31, 1.0), "early-context"),
    "one document 8 nats harder": (
        _unknown(lambda text: text.documents == np.bincount(text.documents).argmax(), 8.0), "hard-document",
    ),
    "the second of two models flatter, T = 2": (_worse, "second-worse"),
}  # fmt: skip


def simulate(draw: Callable[[np.random.Generator, Path], set[str]], runs: int, seed: int) -> Counter[str]:
    """Return how many of some texts had a finding of each rule, and under "any" how many had one at all."""
    counts: Counter[str] = Counter()
    for number in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found = draw(np.random.default_rng([seed, number]), Path(folder))
        counts.update([*found, *(["any"] if found else [])])
    return counts


def main(wanted: list[str]) -> None:
    """Draw the wanted cases, or all of them, and write what was found after each."""
    cases = {**{name: (draw, CLEAN_RUNS) for name, draw in CLEAN.items()},
             **{name: (draw, FAULTY_RUNS) for name, (draw, _) in FAULTY.items()}}  # fmt: skip
    for place, (name, (draw, runs)) in enumerate(cases.items()):
        if wanted and name not in wanted:
            continue
        counts = simulate(draw, runs, place)
        known = json.loads(FILE.read_text()) if FILE.exists() else {}
        known[name] = {"texts": runs, "found": dict(sorted(counts.items()))}
        ordered = {each: known[each] for each in cases if each in known}
        FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(name, known[name], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
