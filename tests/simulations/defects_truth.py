"""Counts how often `defects` is right, on clean documents into which defects of known places are planted.

    python tests/simulations/defects_truth.py

takes the bundled entries of the Jargon File and the stories of shared/data/tinystories.txt without their own damage,
with the tokens of the bundled tokenizer and drawn losses (exponential, mean 3.3 nats as the bundled model's; what is
random costs its entropy, what is known next to nothing). Of each cause it plants 200 places or more at 1 % and at
0.01 % of the tokens, as many drawings as are needed, and writes `defects_truth.json`, in some minutes:

- recall: the share of planted places that a place of the cause touches;
- precision: the share of the places of the cause that touch a planted one;
- others: places of other causes in the same drawings.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.causes import CAUSES
from lossprobe.analysis.defects.find import Search
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.token_blocks import DocumentTokens

sys.path.insert(0, str(Path(__file__).parent))
from defects_planted import IN_ONE, WHOLE, Planted, boilerplate

ROOT = Path(__file__).resolve().parents[2]
STORIES = Path(os.environ.get("LOSSPROBE_SHARED", ROOT / "shared")) / "data/tinystories.txt"
MEAN_NATS = 3.3
PLACES = 200
OF_THE_WHOLE = ("duplicate", "boilerplate", "truncated", "tiny-document")  # causes that need all documents
ENDS = ("truncated", "tiny-document")  # causes whose places stand for a document
FEWER = 500  # documents for these, so that 0.01 % of the tokens is less than a place: one is planted
SHARES = (0.01, 0.0001)


@dataclass
class MadePages:
    """Stands in for the texts of a run: documents in memory, with drawn losses."""

    texts: list[bytes]
    known: dict[int, list[tuple[int, int, float]]] = field(default_factory=dict)
    seed: int = 0
    only: set[int] | None = None
    rebuilt = False
    unknown = 0

    def alone(self) -> Iterator[TextPage]:
        return (TextPage(number, text) for number, text in enumerate(self.texts)
                if self.only is None or number in self.only)  # fmt: skip

    def with_tokens(self) -> Iterator[tuple[TextPage, DocumentTokens]]:
        for page in self.alone():
            ids, starts, stops = tokens_of(page.data)
            losses = np.random.default_rng([self.seed, page.number]).exponential(MEAN_NATS, len(ids))
            for start, stop, nats in self.known.get(page.number, ()):
                inside = (starts >= start) & (stops <= stop)
                losses[inside] = nats * (stops - starts)[inside]
            yield page, DocumentTokens(page.number, ids, starts, stops, losses)


_TOKENIZER = Tokenizer.from_file(str(ROOT / "examples/jargon-plain/tokenizer.json"))
_SEEN: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}


def tokens_of(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids and byte spans of a text's tokens; a character that falls into several tokens belongs to the first."""
    if data not in _SEEN:
        text = data.decode()
        found = _TOKENIZER.encode(text, add_special_tokens=False)
        sizes = np.cumsum([0, *(len(letter.encode()) for letter in text)])
        edges = sizes[[start for start, _ in found.offsets] + [len(text)]]
        edges[:1] = 0
        _SEEN[data] = np.array(found.ids, np.int32), edges[:-1].astype(np.int64), edges[1:].astype(np.int64)
    return _SEEN[data]


def clean_documents() -> list[bytes]:
    """Return the documents; of the stories those without damage, cut at blank lines into pieces of about 100 words."""
    lines = [(ROOT / "examples" / f"jargon-{part}.jsonl").read_text().splitlines() for part in ("train", "valid")]
    texts = [json.loads(line)["text"] for part in lines for line in part]
    if STORIES.exists():
        piece = ""
        for paragraph in STORIES.read_text().split("\n\n"):
            piece += paragraph.strip() + "\n"
            if len(piece.split()) >= 100:
                texts.append(piece)
                piece = ""
    return [text.encode() for text in texts if text.isascii()]


def found_in(planted: Planted, seed: int, only: set[int] | None = None) -> list[tuple[int, Found]]:
    """Return all places that the search finds; `only` reads those documents alone."""
    search = Search(MadePages(planted.texts, planted.nats_per_byte, seed, only))  # type: ignore[arg-type]
    search.read()
    return [(judged.page.number, place) for judged in search.judged() for place in judged.places]


def touches(place: tuple[int, int, int], number: int, found: Found) -> bool:
    return (
        place[0] == number and found.start < max(place[2], place[1] + 1) and max(found.stop, found.start + 1) > place[1]
    )


def plant(cause: str, texts: list[bytes], tokens: float, random: np.random.Generator) -> Planted:
    """Return documents with places of a cause that hold about so many tokens, at least one place (three of a line)."""
    planted = Planted(list(texts))
    free = random.permutation([number for number, text in enumerate(texts) if len(text.split()) >= 45]).tolist()
    held = 0.0
    while held < tokens and free:
        before = len(planted.places)
        if cause == "boilerplate":
            documents = [free.pop() for _ in range(min(len(free), int(random.integers(3, 12))))]
            boilerplate(planted, documents, random)
        else:
            document = free.pop() if cause in WHOLE else int(random.choice(free))
            IN_ONE[cause](planted, document, random)
        for number, start, stop in planted.places[before:]:
            data = texts[number] if cause in ENDS else planted.texts[number][start:stop]
            held += 2 * data.count(b"\r") if cause == "line-ends" else max(1, len(data) / 2.6)
    return planted


def measured(cause: str, share: float, texts: list[bytes], usual: set[tuple[bytes, str, int]]) -> dict[str, float]:
    """Return recall and precision of a cause, over as many drawings as make up 200 places."""
    total = sum(len(tokens_of(text)[0]) for text in texts)
    counts = dict.fromkeys(("planted", "hit", "told", "right", "others", "drawings"), 0)
    while counts["planted"] < PLACES:
        random = np.random.default_rng([list(CAUSES).index(cause), int(share * 1e6), counts["drawings"]])
        planted = plant(cause, texts, share * total, random)
        touched = {place[0] for place in planted.places}
        only = None if cause in OF_THE_WHOLE else touched  # the others are found in a document alone
        found = [(number, each) for number, each in found_in(planted, counts["drawings"], only)
                 if (planted.texts[number], each.cause, each.start) not in usual]  # fmt: skip
        own = [(number, each) for number, each in found if each.cause == cause]
        by_document: dict[int, list[tuple[int, int, int]]] = {}
        for place in planted.places:
            by_document.setdefault(place[0], []).append(place)
        right = [each for each in own if any(touches(place, *each) for place in by_document.get(each[0], ()))]
        counts["planted"] += len(planted.places)
        counts["hit"] += sum(any(touches(place, *each) for each in own) for place in planted.places)
        counts["told"] += len(own)
        counts["right"] += len(right)
        counts["others"] += len(found) - len(own)
        counts["drawings"] += 1
        tell_mistakes(cause, planted, own, right)
    return {
        "recall": counts["hit"] / counts["planted"], "precision": counts["right"] / max(1, counts["told"]),
        **{name: counts[name] for name in ("planted", "told", "others", "drawings")},
    }  # fmt: skip


def tell_mistakes(cause: str, planted: Planted, own: list[tuple[int, Found]], right: list[tuple[int, Found]]) -> None:
    """Write some places that are missed, and some that are wrong, to standard error."""
    missed = [place for place in planted.places if not any(touches(place, *each) for each in own)]
    wrong = [(number, each.start, each.stop) for number, each in own if (number, each) not in right]
    for what, places in (("missed", missed), ("wrong", wrong)):
        for number, start, stop in places[:4]:
            print(cause, what, planted.texts[number][start:stop][:100], file=sys.stderr)


def main() -> None:
    """Measure every cause, and write the figures."""
    texts = clean_documents()
    clean = found_in(Planted(list(texts)), 0)
    usual = {(texts[number], place.cause, place.start) for number, place in clean}
    made = {"documents": len(texts), "tokens": sum(len(tokens_of(text)[0]) for text in texts),
            "places_in_clean_text": [[place.cause, texts[number][place.start : place.stop].decode()[:80]]
                                     for number, place in clean], "causes": {}}  # fmt: skip
    print(json.dumps(made, indent=1), file=sys.stderr)
    chosen = sys.argv[1:] or list(CAUSES)
    for cause in chosen:
        used = texts[:FEWER] if cause in OF_THE_WHOLE else texts
        made["causes"][cause] = {f"{share:g}": measured(cause, share, used, usual) for share in SHARES}
        print(cause, json.dumps(made["causes"][cause]))
    if chosen == list(CAUSES):
        Path(__file__).with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
