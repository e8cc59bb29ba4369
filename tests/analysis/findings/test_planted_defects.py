"""The share of the loss in defects of the text: against sums over the losses that each test chooses."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from bundled import CHECKPOINT
from drawn_runs import as_pairs
from fake_runs import Doc, write_run

import lossprobe
from lossprobe.analysis.defects.defects import find_defects
from lossprobe.analysis.findings.findings import find_findings
from lossprobe.analysis.findings.rule import RuleFinding
from lossprobe.analysis.findings.words import percent

WORDS = [f"{first}{vowel}{last}" for first in "bdfgklmnprst" for vowel in "aeiou" for last in "lmnrt"]
WRONG, TAG, NAME = "â€™", "<br>", "<|im_end|>"


def story(number: int, words: int = 60) -> list[str]:
    """Return the words of a sentence that is another one for each number; the last one has a full stop."""
    chosen = np.random.default_rng([5, number]).choice(WORDS, words).tolist()
    return [f" {word}" for word in [*chosen[:-1], f"{chosen[-1]}."]]


def with_places(number: int, place: str, count: int) -> list[str]:
    """Return such words with a place of a defect after each of the first ones but the very first."""
    words = story(number)
    return [words[0], *(piece for word in words[1 : count + 1] for piece in (word, f" {place}")), *words[count + 1 :]]


def written(folder, texts: list[list[str]], dear: float = 8.0, known: tuple[int, ...] = (), **choices):
    """Write a run: 3 bits a word, `dear` bits a place of a defect, and 0.01 bits all words of known documents."""
    docs = []
    for number, words in enumerate(texts):
        bits = [0.01 if number in known else dear if re.search("[â<]", word) else 3.0 for word in words]
        docs.append(Doc([word.encode() for word in words], ["first_token", *bits[1:]], line=number + 1))
    return write_run(folder, docs, copies=True, **choices)


def told(run, id: str = "defects-in-text") -> list[RuleFinding]:
    return [each for each in find_findings(run).findings if each.id == id]


@pytest.mark.thorough
def test_two_kinds_of_damage_and_what_they_cost(tmp_path):
    """Of 20 documents five have four wrong quotes each, and five a tag each: 8 bits each, of 3 bits a word."""
    texts = [with_places(number, WRONG, 4) for number in range(5)]
    texts += [with_places(number, TAG, 1) for number in range(5, 10)]
    texts += [story(number) for number in range(10, 20)]
    run = written(tmp_path / "messy", texts)
    total = 20 * 59 * 3 + 25 * 8
    (found,) = told(run)
    assert (found.severity, found.look) == ("warning", f"lossprobe defects {run.path}")
    assert found.value == found.share_of_loss == pytest.approx(25 * 8 / total, rel=1e-5)
    assert found.sentence == (
        "5.3 % of the loss is in 25 places of defects of the text: mojibake (4.3 %), markup (1.1 %)"
    )
    assert found.value_interval == found.decision_interval == (None, None)
    assert told(written(tmp_path / "less", texts, dear=7.0)) == []  # 4.7 %
    assert told(written(tmp_path / "clean", [story(number) for number in range(20)])) == []


def test_three_causes_are_named_the_dearest_first(tmp_path):
    """Places of 8 bits, 24 of markup, 36 of mojibake and 30 of names of tokens, and six form feeds of 3 bits."""
    kinds = [(TAG, 4), (WRONG, 6), (NAME, 5), ("\f", 1)]
    texts = [with_places(6 * kind + each, *kinds[kind]) for kind in range(4) for each in range(6)]
    (found,) = told(written(tmp_path, texts))
    total = 24 * 59 * 3 + 90 * 8 + 6 * 3
    shares = [f"{name} ({percent(count * 8 / total)})"
              for name, count in (("mojibake", 36), ("template-string", 30), ("markup", 24))]  # fmt: skip
    assert found.sentence.endswith(f" in 96 places of defects of the text: {', '.join(shares)}, and 1 other cause")


@pytest.mark.thorough
def test_a_run_without_text_says_the_same_of_the_bytes_of_its_tokens(tmp_path):
    texts = [with_places(number, WRONG, 6) for number in range(20)]
    (kept,), (bare,) = (told(written(tmp_path / str(each), texts, keep_text=each)) for each in (True, False))
    assert (kept.value, kept.sentence) == (bare.value, bare.sentence)


def test_of_documents_whose_bytes_are_not_known_a_note_says_that_they_were_not_looked_at(tmp_path):
    """A vocabulary whose entry for the wrong quote is not what stands in the text, in 12 of 20 documents."""
    texts = [with_places(number, WRONG, 6 if number < 12 else 0) for number in range(20)]
    run = written(tmp_path, texts, keep_text=False)
    path = tmp_path / "vocabulary.parquet"
    entries = pd.read_parquet(path)
    entries["bytes"] = [b"?" if entry == f" {WRONG}".encode() else entry for entry in entries["bytes"]]
    entries.to_parquet(path)
    found = find_findings(run)
    assert "defects were not looked for in 12 documents, whose bytes are not known" in found.notes
    assert "defects-in-text" not in {each.id for each in found.findings}


@pytest.mark.thorough
def test_whole_copies_are_told_once(tmp_path):
    """Four of 24 documents are copies: of ten documents or more another rule tells them, and this one the damage."""
    texts = [with_places(number, WRONG, 10 if number < 10 else 0) for number in range(15)]
    texts += [with_places(number, TAG, 5) for number in range(15, 20)]
    texts += [texts[number] for number in (0, 1, 18, 19)]
    run = written(tmp_path / "many", texts)
    total = 24 * 59 * 3 + (120 + 35) * 8
    (copies,) = told(run, "repeated-documents")
    (found,) = told(run)
    assert copies.value == 4 / 24
    assert found.value == pytest.approx(125 * 8 / total, rel=1e-5)
    shares = f"mojibake ({percent(800 / total)}), markup ({percent(200 / total)})"
    assert found.sentence.endswith(f" % of the loss is in 125 places of defects of the text: {shares}")
    alone = [story(number) for number in range(20)]
    assert told(written(tmp_path / "alone", [*alone, *alone[:4]])) == []


@pytest.mark.thorough
def test_copies_of_which_no_other_rule_tells_are_told(tmp_path):
    """One of five documents is a copy; so few the other rule does not judge."""
    run = written(tmp_path, [story(0), story(1), story(2), story(3), story(0)])
    assert told(run, "repeated-documents") == []
    (found,) = told(run)
    assert found.value == pytest.approx(0.2, rel=1e-6)
    assert found.sentence == "20 % of the loss is in 1 place of defects of the text: duplicate"


@pytest.mark.thorough
def test_what_is_known_by_heart_is_no_damage_of_the_text(tmp_path):
    """Every document is known: all of the little loss lies in places of `defects`, and another rule tells them."""
    run = written(tmp_path, [story(number) for number in range(12)], known=tuple(range(12)))
    assert find_defects(run).share_of_loss == pytest.approx(1.0)
    assert told(run) == []
    (known,) = told(run, "known-by-heart")
    assert known.value == 12


@pytest.mark.thorough
def test_names_of_special_tokens_are_told_once(tmp_path):
    """As control ids they are another rule's; a tokenizer that does not know them reads them as text."""
    texts = ["".join(with_places(number, "<|endoftext|>", 8)).strip() for number in range(12)]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    run = lossprobe.score(CHECKPOINT, path, output=tmp_path / "run").run
    share = find_defects(run).table.set_index("cause")["share_of_loss"]["template-string"]
    assert share > 0.05
    assert len(told(run, "control-strings")) == 1
    assert told(run) == []
    (found,) = told(written(tmp_path / "text", [with_places(number, NAME, 8) for number in range(12)]))
    assert found.sentence.endswith(" is in 96 places of defects of the text: template-string")


@pytest.mark.thorough
def test_pairs_and_two_models_of_one_text(tmp_path):
    """Of both sides of pairs the text is looked at; of two models each has its own share."""
    texts = [with_places(number, WRONG, 6) for number in range(20)]
    labels = [(1, "assistant", "content")] * 66
    docs = [Doc([word.encode() for word in words], ["first_token", *[3.0] * 65], labels=labels, line=number)
            for number, words in enumerate(texts)]  # fmt: skip
    (found,) = told(as_pairs(write_run(tmp_path / "pairs", docs)))
    assert found.value == pytest.approx(6 / 65, rel=1e-5)
    both = [written(tmp_path / name, texts, dear, name=name) for name, dear in (("one", 8.0), ("two", 16.0))]
    table = find_findings(both).table.set_index("model")
    values = table[table["rule"] == "defects-in-text"]["value"]
    assert values.to_dict() == pytest.approx({"one": 48 / (48 + 177), "two": 96 / (96 + 177)}, rel=1e-5)
