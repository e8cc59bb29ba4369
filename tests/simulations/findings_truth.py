"""How often rules speak of texts without a fault, and of texts with one.

Every token of a clean text is drawn from what the model predicts, so that the model is calibrated; its loss falls a
little with the first tokens of context, and is the same in all classes, documents and files. Each number that a rule
looks at has its true value on the right side of the threshold. A faulty text has one fault, of a known size.

    python tests/simulations/findings_truth.py [CASE…]

draws the texts of each clean case (with how many stands beside it) and `FAULTY_RUNS` of each faulty one, in some twenty
minutes of processor time, and writes `findings_truth.json`: per case the texts drawn, and how many had a finding of
each rule.
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

from drawn_runs import (
    as_pairs,
    document_numbers,
    draw_logits,
    draw_targets,
    log_probabilities,
    smoothed_logits,
    tempered_logits,
    write_drawn,
)
from planted_runs import run_of_halves

from lossprobe.analysis.compare.compare import compare
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.findings import find_findings
from lossprobe.run.reader import Run

FILE = Path(__file__).with_suffix(".json")
FAULTY_RUNS = 20
VOCABULARY, CONTEXT = 64, 256
START = 0.4  # logits after one token of context are this much flatter, after t tokens START / t
LIKENESS = 0.3  # standard deviation of the log of a document's scale, where documents are unlike
NOISE, FAR = 0.1, 0.5  # standard deviations of the logits of two models that know the same
ODD = range(48, 56)  # ids of characters beyond ASCII
END = 63  # id that ends a turn in conversations
PIECES = [
    *(b" w%d" % place for place in range(48)), *("éèêëàâîï"[place].encode() for place in range(8)),
    b" 7", b" 8", b"1", b"2", b"\n", b"\r\n", b".", b",",
]  # fmt: skip
MISREAD = [letter.encode().decode("cp1252").encode() for letter in "éèêëâîïö"]


Draw = Callable[[np.random.Generator, Path], set[str]]


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
    return text_of(rng, numbers, np.exp(spread * rng.standard_normal(documents)))


def text_of(rng, numbers: np.ndarray, scales: np.ndarray) -> Text:
    """Return a clean text of documents with these scales of the logits; `numbers` [N] says which one a row is of."""
    sizes = np.bincount(numbers)
    place = np.arange(len(numbers)) - np.repeat(sizes.cumsum() - sizes, sizes)
    scale = scales[numbers] * (1.0 - START / (1.0 + place % CONTEXT))
    logits = draw_logits(rng, len(numbers), VOCABULARY) * scale[:, None]
    return Text(logits, draw_targets(rng, logits), numbers, place)


def told(folder: Path, *models: np.ndarray, text: Text, **choices) -> set[str]:
    """Return the rules that speak of a text under one model, or of the comparison of two alone."""
    runs = [drawn(folder / str(place), logits, text, name=f"model {place}", **choices)
            for place, logits in enumerate(models)]  # fmt: skip
    found = find_findings(runs)
    return {each.id for each in found.findings if len(runs) == 1 or each.view == "compare"}


def drawn(folder: Path, logits: np.ndarray, text: Text, **choices) -> Run:
    """Return a stored run of a text under the model with these logits."""
    choices = {"vocabulary": PIECES, "context": CONTEXT, "sample_every": 4} | choices
    return write_drawn(folder, logits, text.targets, text.documents, **choices).run


def _alone(tokens: int, documents: int, spread: float = 0.0) -> Draw:
    def draw(rng, folder):
        text = draw_text(rng, tokens, documents, spread)
        return told(folder, text.logits, text=text)

    return draw


def _short(rng, folder: Path) -> set[str]:
    """Return what is told of 150 documents of 20 to 40 tokens."""
    sizes = rng.integers(20, 41, 150)
    text = text_of(rng, np.repeat(np.arange(150), sizes), np.ones(150))
    return told(folder, text.logits, text=text)


def _files(by: float) -> Draw:
    """Return what draws 40 documents in four files, whose last one is harder by some nats."""

    def draw(rng, folder):
        text = draw_text(rng, 4000, 40)
        logits = text.logits.copy()
        logits[np.arange(len(logits)), text.targets] -= by * (text.documents >= 30)
        return told(folder, logits, text=text, sources=[f"part-{number // 10}.jsonl" for number in range(40)])

    return draw


def _chat(by: float) -> Draw:
    """Return what draws 30 conversations of four turns, all scored.

    The ends of the turns of the assistant have the probability 0.9, with a logit that is too low by some nats.
    """

    def draw(rng, folder):
        text = draw_text(rng, 4000, 30)
        sizes = np.bincount(text.documents)
        labels, ends = [], []
        for size in sizes.tolist():
            turns = np.arange(size) * 4 // max(4, size)
            last = np.append(np.diff(turns) > 0, True) & (turns % 2 == 1)
            ends += last.tolist()
            labels += [(0, "user", "content")]  # the unscored first token
            labels += [(turn, ("user", "assistant")[turn % 2], "end_of_turn" if end else "content")
                       for turn, end in zip(turns.tolist(), last.tolist(), strict=True)]  # fmt: skip
        logits, chosen = text.logits.copy(), np.array(ends)
        text.targets[chosen] = END
        logits[chosen] *= 0.01
        logits[chosen, END] = np.log(0.9 / 0.1 * (VOCABULARY - 1)) - by
        return told(folder, logits, text=text, labels=labels)

    return draw


def _pairs(rng, folder: Path) -> set[str]:
    """Return what is told of 100 pairs whose sides are drawn alike, all of one length: a sum favours short ones."""
    text = text_of(rng, np.repeat(np.arange(200), 30), np.ones(200))
    labels = [(1, "assistant", "content")] * (len(text.targets) + 200)
    run = as_pairs(drawn(folder / "0", text.logits, text, labels=labels))
    return {each.id for each in find_findings(run).findings}


def _two(noise: float) -> Draw:
    def draw(rng, folder):
        text = draw_text(rng, 4000, 40)
        noisy = [text.logits + noise * rng.standard_normal(text.logits.shape) for _ in range(2)]
        return told(folder, *noisy, text=text)

    return draw


def _tokenizers(noise: float, temperature: float = 1.0) -> Draw:
    """Return what draws a text that a second model reads in other tokens, with its losses of the first one's."""

    def draw(rng, folder):
        text = draw_text(rng, 4000, 40)
        one, two = (text.logits + noise * rng.standard_normal(text.logits.shape) for _ in range(2))
        nats = -log_probabilities(two / temperature)[np.arange(len(text.targets)), text.targets]
        runs = (
            drawn(folder / "0", one, text, name="model 0"),
            run_of_halves(folder / "1", text.targets, text.documents, nats, name="model 1", context=CONTEXT),
        )
        return {each.id for each in findings_of("compare", compare(*runs, by="class"))}

    return draw


def _tempered(temperature: float) -> Draw:
    def draw(rng, folder):
        text = draw_text(rng, 6000, 60)
        return told(folder, tempered_logits(text.logits, temperature), text=text)

    return draw


def _smoothed(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 6000, 60)
    return told(folder, smoothed_logits(text.logits, 0.1), text=text)


def _unknown(rows: Callable[[Text], np.ndarray], by: float) -> Draw:
    """Return what draws a text in whose chosen rows the token's own logit is too low by some nats."""

    def draw(rng, folder):
        text = draw_text(rng, 6000, 60)
        logits, chosen = text.logits.copy(), rows(text)
        logits[np.flatnonzero(chosen), text.targets[chosen]] -= by
        return told(folder, logits, text=text)

    return draw


def _longest(text: Text) -> np.ndarray:
    return text.documents == np.bincount(text.documents).argmax()


def _misread(rng, folder: Path) -> set[str]:
    """Return what is told of a text whose characters beyond ASCII were decoded wrongly, by a model that knows them."""
    text = draw_text(rng, 6000, 60)
    vocabulary = [*PIECES[: ODD.start], *MISREAD, *PIECES[ODD.stop :]]
    return told(folder, text.logits, text=text, vocabulary=vocabulary)


def _worse(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 4000, 40)
    return told(folder, text.logits, tempered_logits(text.logits, 2.0), text=text)


def _second_smoothed(rng, folder: Path) -> set[str]:
    text = draw_text(rng, 4000, 40)
    return told(folder, text.logits, smoothed_logits(text.logits, 0.1), text=text)


CLEAN = {
    "40 documents, 4,000 tokens": (_alone(4000, 40), 60),
    "40 unlike documents, 4,000 tokens": (_alone(4000, 40, LIKENESS), 60),
    "5 documents, 2,000 tokens": (_alone(2000, 5), 80),
    "5 unlike documents, 2,000 tokens": (_alone(2000, 5, LIKENESS), 40),
    "150 documents of 20 to 40 tokens": (_short, 50),
    "40 documents in 4 files": (_files(0.0), 50),
    "one document, 12,400 tokens": (_alone(12_400, 1), 60),
    "30 conversations, 4,000 tokens": (_chat(0.0), 50),
    "100 pairs of equal answers": (_pairs, 40),
    "two models that know the same": (_two(NOISE), 50),
    "two models that know the same, further apart": (_two(FAR), 30),
    "two models of other tokenizers that know the same": (_tokenizers(NOISE), 50),
}
FAULTY = {
    "over-confident, T = 0.6": (_tempered(0.6), "expects-less-loss"),
    "under-confident, T = 1.5": (_tempered(1.5), "expects-more-loss"),
    "smoothed by ε = 0.1": (_smoothed, "expects-more-loss"),
    "characters beyond ASCII 6 nats harder": (_unknown(lambda text: np.isin(text.targets, ODD), 6.0), "hard-class"),
    "the first 31 tokens 1 nat harder": (_unknown(lambda text: text.place < 31, 1.0), "early-context"),
    "one document 8 nats harder": (_unknown(_longest, 8.0), "hard-document"),
    "one document known by heart": (_unknown(_longest, -40.0), "known-by-heart"),
    "one file of four 3 nats harder": (_files(3.0), "hard-file"),
    "ends of turns not expected": (_chat(4.0), "end-of-turn-hard"),
    "the second of two models flatter, T = 2": (_worse, "second-worse"),
    "the second of two models smoothed by ε = 0.1": (_second_smoothed, "second-worse"),
    "the second of two models of other tokenizers flatter, T = 2": (_tokenizers(NOISE, 2.0), "second-worse-by-byte"),
    "characters beyond ASCII decoded wrongly": (_misread, "defects-in-text"),
}  # fmt: skip


def simulate(draw: Draw, runs: int, seed: int) -> Counter[str]:
    """Return how many of some texts had a finding of each rule, and under "any" how many had one at all."""
    counts: Counter[str] = Counter()
    for number in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found = draw(np.random.default_rng([seed, number]), Path(folder))
        counts.update([*found, *(["any"] if found else [])])
    return counts


def main(wanted: list[str]) -> None:
    """Draw the wanted cases, or all of them, and write what was found after each."""
    cases = {**CLEAN, **{name: (draw, FAULTY_RUNS) for name, (draw, _) in FAULTY.items()}}  # fmt: skip
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
