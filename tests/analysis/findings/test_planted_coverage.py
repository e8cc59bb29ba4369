"""Rules on coverage after real scoring: the number of the finding against the text and the tokenizers library."""

from __future__ import annotations

import json

import pytest
from bundled import CHECKPOINT
from checkpoint import builders
from tokenizers import Tokenizer, normalizers

import lossprobe
from lossprobe import open_checkpoint
from lossprobe.analysis.findings.engine import findings_of
from lossprobe.analysis.findings.facts import find_facts
from lossprobe.analysis.findings.words import percent
from lossprobe.analysis.perplexity import measure_perplexity
from lossprobe.passes.known_text import KnownText
from lossprobe.passes.rendered import both_sides
from lossprobe.text.documents import TextOptions, open_text

WORDS = ["the", "cat", "sat", "on", "the", "mat", ".", "the", "cat", "sat"]


def scored(folder, checkpoint, texts: list[str], **options):
    """Return the run of a JSONL of these texts."""
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return lossprobe.score(checkpoint, path, output=folder / "run", **options).run


def one(result, id: str):
    """Return the finding of a rule."""
    (found,) = (each for each in findings_of("perplexity", result) if each.id == id)
    return found


def told(result) -> set[str]:
    return {each.id for each in findings_of("perplexity", result)}


def small(folder, tokenizer: Tokenizer):
    return builders.save(builders.model("llama"), folder / "model", tokenizer)


def test_names_of_control_tokens_in_the_text(tmp_path):
    texts = [f"entry {place}: a word<|endoftext|> and what it means to hackers" for place in range(20)]
    texts += ["nothing of the kind stands here, in so many words"] * 20
    run = scored(tmp_path, CHECKPOINT, texts)
    read = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    tokens = sum(len(read.encode(text).ids) for text in texts)
    names = sum(text.count("<|endoftext|>") for text in texts)
    found = one(measure_perplexity(run), "control-strings")
    assert found.value == names / tokens
    assert found.sentence == f"{100 * names / tokens:.2g} % of the tokens ({names}) are control ids spelled in the text"


def test_words_outside_the_vocabulary(tmp_path):
    texts = [" ".join(WORDS) + (" dog" if place % 3 == 0 else "") for place in range(30)]
    run = scored(tmp_path, small(tmp_path, builders.word_level()), texts, max_unknown=0.5)
    words = [word for text in texts for word in text.split()]
    unknown = sum(word == "dog" for word in words)
    found = one(measure_perplexity(run), "unknown-tokens")
    assert found.value == unknown / len(words)
    assert found.sentence.endswith(f"of the tokens ({unknown}) are unknown to the tokenizer")


def test_bad_records_that_were_left_out(tmp_path):
    path = tmp_path / "text.jsonl"
    good, bad = json.dumps({"text": " ".join(WORDS)}), "{not json"
    path.write_text("\n".join([good, good.replace("cat", "mat"), *[bad] * 3, *[good] * 35]) + "\n", "utf-8")
    run = lossprobe.score(small(tmp_path, builders.word_level()), path, output=tmp_path / "run", skip_bad=True).run
    result = measure_perplexity(run)
    found = one(result, "records-skipped")
    assert found.value == 3 / 40
    assert found.sentence == "7.5 % of the records could not be read and were left out (3)"
    copies = one(result, "repeated-documents")
    assert copies.value == pytest.approx(35 / 37)
    assert copies.sentence == "95 % of 37 documents are copies of others: 2 different ones"


@pytest.mark.parametrize("sides", ["both", "chosen"])
def test_of_bad_pairs_each_counts_once_whichever_sides_are_scored(tmp_path, sides):
    """Of 12 lines one is no JSON, and one has no rejected side."""
    said = [{"prompt": "the cat ", "chosen": f"sat on {'the ' * (place + 9)}mat .", "rejected": "sat on . " * 5}
            for place in range(10)]  # fmt: skip
    lines = ["{not json", *map(json.dumps, said), json.dumps({"prompt": "the cat ", "chosen": "sat on the mat ."})]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    text = open_text(path, TextOptions(skip_bad=True, data_kind="pairs"))
    model = open_checkpoint(small(tmp_path, builders.byte_level_bpe()))
    source = both_sides(KnownText(text), model) if sides == "both" else text
    run = lossprobe.score(model, source, output=tmp_path / "run").run
    assert run.counts["documents"] == (20 if sides == "both" else 10)
    found = one(measure_perplexity(run), "records-skipped")
    assert found.value == 2 / 12
    assert found.sentence == "17 % of the records could not be read and were left out (2)"


def test_prompts_scored_in_the_place_of_answers(tmp_path):
    model = small(tmp_path, builders.word_level())
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (tmp_path / "t.jinja").write_text(template)
    path = tmp_path / "chat.jsonl"
    said = [{"role": role, "content": "the cat sat on mat ."} for role in ("user", "assistant")]
    path.write_text("".join(json.dumps({"messages": said}) + "\n" for _ in range(30)), "utf-8")
    run = lossprobe.score(model, path, output=tmp_path / "run", chat_template=tmp_path / "t.jinja", score="user").run
    (found,) = (each for each in findings_of("findings", find_facts(run)) if each.id == "answers-masked")
    assert found.value == 1.0
    assert found.sentence.startswith("100 % of the tokens of answers have no loss, and ")


def test_text_that_the_context_cuts_off(tmp_path):
    model = small(tmp_path, builders.word_level())
    texts = [" ".join(WORDS * (2 if place % 10 == 0 else 1) + [WORDS[place % 6]]) for place in range(30)]
    run = scored(tmp_path, model, texts, context=12, truncate="keep-start")
    tokens = [len(text.replace(".", " . ").split()) for text in texts]
    cut = sum(max(0, size - 12) for size in tokens)  # a trainer's row of 12 tokens
    found = one(measure_perplexity(run), "truncated")
    assert found.value == cut / sum(tokens)
    assert found.sentence == f"{percent(cut / sum(tokens))} of the tokens ({cut}) are cut off by the context"
    whole = lossprobe.score(model, tmp_path / "text.jsonl", output=tmp_path / "whole", truncate="keep-start").run
    assert "truncated" not in told(measure_perplexity(whole))


def test_bytes_that_have_no_token(tmp_path):
    """A vocabulary of bytes that lacks one, as it comes of merging by hand: an "é" keeps half of itself."""
    tokenizer = without(builders.byte_level_bpe(), "Ã", "Ã©")
    model = small(tmp_path, tokenizer)
    texts = [" ".join(WORDS) + (" café" if place % 10 == 0 else "") for place in range(30)]
    run = scored(tmp_path, model, texts)
    size = sum(len(text.encode()) for text in texts)
    gone = sum(text.encode().count(0xC3) for text in texts)
    result = measure_perplexity(run)
    found = one(result, "bytes-vanished")
    assert (found.value, gone) == (3 / size, 3)
    assert found.sentence == f"{percent(3 / size)} of the bytes (3) have no token"
    assert "bytes-normalised" not in told(result)  # the same bytes are told once
    (tmp_path / "clean.jsonl").write_text(json.dumps({"text": " ".join(WORDS * 3)}) + "\n", "utf-8")
    clean = lossprobe.score(model, tmp_path / "clean.jsonl", output=tmp_path / "clean").run
    assert "bytes-vanished" not in told(measure_perplexity(clean))


def test_bytes_that_the_tokenizer_drops_or_rewrites(tmp_path):
    """A tokenizer of lower case: it reads others of the capitals, and of two of three texts none."""
    tokenizer = builders.byte_level_bpe()
    tokenizer.normalizer = normalizers.Lowercase()
    model = small(tmp_path, tokenizer)
    texts = [" ".join(WORDS).replace("cat", "Cat" if place % 3 == 0 else "cat") for place in range(30)]
    run = scored(tmp_path, model, texts)
    size, capitals = sum(map(len, texts)), sum(text.count("C") for text in texts)
    found = one(measure_perplexity(run), "bytes-normalised")
    assert found.value == capitals / size
    assert found.sentence == f"the tokenizer drops or rewrites {percent(capitals / size)} of the bytes ({capitals})"
    (tmp_path / "clean.jsonl").write_text(json.dumps({"text": " ".join(WORDS * 3)}) + "\n", "utf-8")
    clean = lossprobe.score(model, tmp_path / "clean.jsonl", output=tmp_path / "clean").run
    assert "bytes-normalised" not in told(measure_perplexity(clean))


def without(tokenizer: Tokenizer, *pieces: str) -> Tokenizer:
    """Return a tokenizer that lacks some pieces, and what was merged of them."""
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    model["vocab"] = {piece: id for piece, id in model["vocab"].items() if piece not in pieces}
    model["merges"] = [pair for pair in model["merges"] if not set(pieces) & {*pair, "".join(pair)}]
    return Tokenizer.from_str(json.dumps(content))
