"""Documents that are cut into small pieces have the tokens and spans of the document tokenized at once."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from checkpoint import builders
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from lossprobe.checkpoint.tokenizers import sandbox_worker
from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.frames import COUNTS
from lossprobe.checkpoint.tokenizers.pieces import NotLocal, Sizes, Splitter
from lossprobe.checkpoint.tokenizers.sandbox_worker import WorkerTokenizer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = Sizes(piece=80, overlap=40, words=2, batch=3)
GPT4 = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def with_nfc():
    """Return one like Qwen's: composed characters."""
    tokenizer = builders.byte_level_bpe()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def with_long_pattern():
    """Return one like Llama 3's: a pattern that looks ahead, then bytes."""
    tokenizer = builders.byte_level_bpe()
    split = pre_tokenizers.Split(Regex(GPT4), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def with_prefix_space():
    """Return one like RoBERTa's: a blank before the text, which tokens may or may not include."""
    tokenizer = builders.byte_level_bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def with_greedy_added_tokens():
    """Added tokens that take the blanks beside them, hold blanks, or stand alone."""
    tokenizer = builders.byte_level_bpe()
    tokenizer.add_tokens(
        [
            AddedToken("<mask>", lstrip=True, normalized=False),
            AddedToken("<sep>", rstrip=True, normalized=False),
            AddedToken("the cat the", normalized=True),
            AddedToken("cat", single_word=True),
        ]
    )
    return tokenizer


def with_greedy_marks():
    """The same for pieces with ▁."""
    tokenizer = builders.metaspace_unigram()
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<sep>", rstrip=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return tokenizer


def digits_from_the_right():
    """Return one that groups digits by three, counted from the end of a number."""
    tokenizer = builders.word_level()
    groups = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*(?:\D|$))"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), groups])
    return tokenizer


def short_words():
    """Return one like BERT's, where a word of more than 8 letters is unknown."""
    content = json.loads(builders.wordpiece().to_str())
    content["model"]["max_input_chars_per_word"] = 8
    return Tokenizer.from_str(json.dumps(content))


def fixed_length():
    """Return one whose tokens depend on the start of the text, so that pieces never agree."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the c": 1, "at sa": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.FixedLength(length=5)
    return tokenizer


MORE = (
    with_nfc, with_long_pattern, with_prefix_space, with_greedy_added_tokens, with_greedy_marks, digits_from_the_right,
    short_words, fixed_length,
)  # fmt: skip
TOKENIZERS = builders.TOKENIZERS | {build.__name__: build for build in MORE}
KINDS = sorted(TOKENIZERS)


@cache
def opened(kind, sizes):
    return WorkerTokenizer(TOKENIZERS[kind]().to_str(), "", sizes)


WORDS = (
    *("the ", "cat ", "sat ", "the cat the ", "mat. ", "rat", " a", "\n", "\n\n", "  ", "\t", ", ", "!", "Once upon"),
    *(
        "é",
        "e\u0301",
        "a\u0323\u0307",
        "漢字，",
        "。",
        "😀",
        "\U0001f468\u200d\U0001f469",
        "İ",
        "ﬀ",
        "\u00a0",
        "\u2581",
    ),
    *("<s>", "</s>", " <mask> ", "<sep>  ", "<|endoftext|>", "[UNK]", "##at", "<0x41>", "1234567", "12"),
)
RUNS = st.tuples(st.sampled_from([*WORDS, "a", " ", "\u0301", "0"]), st.integers(30, 400))
LONG = RUNS.map(lambda run: run[0] * run[1])
PARTS = st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(WORDS), LONG)
TEXTS = st.lists(PARTS, max_size=150).map("".join)


def joins(kind, data, sizes):
    """Return in how many runs the tokens of a document come."""
    tokenizer = opened(kind, sizes)
    return sum(1 for _ in Splitter(lambda ranges: tokenizer._pieces(data, ranges), data, tokenizer._sizes).runs())


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@example("the cat sat on the mat. " * 60)
@example("a" * 1000)
@example(" " * 1000 + "a")
@example("the cat " * 20 + "\n" * 500 + "the cat " * 20)
@example("the cat sat " * 10 + "1" * 700 + " the cat sat" * 10)
@example("e" + "\u0301" * 600)
@example("the cat <mask> " * 40 + "  " * 100 + "<mask> sat" * 30)
@example("the cat the cat " * 50)
def test_pieces_have_the_tokens_and_spans_of_the_whole(kind, text):
    data = text.encode()
    whole, pieces = (opened(kind, sizes).encode(data) for sizes in (Sizes(), TINY))
    assert pieces == whole


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fixed_length"])
def test_a_plain_text_does_come_in_pieces(kind):
    data = b"the cat sat on the mat. Once upon a time, " * 500
    edges = len(opened(kind, TINY)._sizes.starts(len(data)))
    assert edges > 5
    assert joins(kind, data, TINY) > edges * 0.9


def test_where_pieces_never_agree_more_and_more_is_taken_together(monkeypatch):
    asked = []
    pieces_of = WorkerTokenizer._pieces

    def noted(self, data, ranges):
        asked.extend(ranges)
        return pieces_of(self, data, ranges)

    monkeypatch.setattr(sandbox_worker.WorkerTokenizer, "_pieces", noted)
    data = b"a" * 10_000
    assert joins("byte_level_bpe", data, TINY) == 1
    assert (0, len(data)) in asked
    assert sum(stop - start for start, stop in asked) < 8 * len(data)  # and not for every piece anew


@pytest.mark.parametrize("words", [1, 16])
@pytest.mark.parametrize("tokenizer", ["jargon-plain", "jargon-smoothed"])
def test_the_bundled_tokenizer_on_the_bundled_text(tokenizer, words):
    content = (EXAMPLES / tokenizer / "tokenizer.json").read_text(encoding="utf-8")
    lines = (EXAMPLES / "jargon-valid.jsonl").read_text(encoding="utf-8").splitlines()
    data = "\n\n".join(json.loads(line)["text"] for line in lines).encode()
    whole = WorkerTokenizer(content, "", Sizes()).encode(data)
    cut = WorkerTokenizer(content, "", Sizes(piece=2000, overlap=800, words=words))
    assert cut.encode(data) == whole
    runs = list(Splitter(lambda ranges: cut._pieces(data, ranges), data, cut._sizes).runs())
    assert len(runs) == len(cut._sizes.starts(len(data)))  # joined at every edge, at the first try


def test_a_tokenizer_whose_first_tokens_hang_on_the_last_ones_gets_the_whole():
    far = {"type": "Replace", "pattern": {"Regex": r"cat(?=[\s\S]*END)"}, "content": "dog"}
    content = json.dumps(builders.definition(normalizer=far))
    data = b"the cat sat on " * 20 + b"a" * 300 + b" END"
    tokenizer = WorkerTokenizer(content, "", TINY)
    splitter = Splitter(lambda ranges: tokenizer._pieces(data, ranges), data, tokenizer._sizes)
    with pytest.raises(NotLocal):
        list(splitter.runs())
    assert tokenizer.encode(data) == WorkerTokenizer(content, "", Sizes()).encode(data)


@pytest.mark.parametrize(
    ("kind", "overlap", "piece"),
    [
        ("word_level", 40, 80),
        ("byte_level_bpe", 4 * len("<|endoftext|>"), 104),  # the longest added token, and text around it
        ("short_words", 4 * 4 * 8, 256),
        ("wordpiece", 4 * 4 * 100, 3200),  # 100 letters of up to four bytes are a word, 101 are not
    ],
)
def test_an_overlap_is_long_enough_for_what_the_tokenizer_looks_at(kind, overlap, piece):
    sizes = opened(kind, TINY)._sizes
    assert (sizes.overlap, sizes.piece, sizes.words) == (overlap, piece, 2)
    assert opened(kind, Sizes())._sizes == Sizes()


def test_a_document_is_cut_where_pieces_cover_it():
    sizes = Sizes(piece=10, overlap=4)
    assert [list(sizes.starts(size)) for size in (0, 14, 15, 24, 25)] == [[0], [0], [0, 10], [0, 10], [0, 10, 20]]


# Several documents with one request
DOCUMENTS = (
    "the cat sat", "", "the cat  sat\n", "A Cat; \u00c9 e\u0301 \u4e16 \U0001f600", "<|endoftext|> the <mask> cat",
    "the cat sat on the mat, " * 60, " ", "12345678 unbelievable",
)  # fmt: skip


def together_of(tokenizer: WorkerTokenizer, documents: list[bytes]) -> tuple[list[int], list[int], list[list[int]]]:
    ids, widths, counts = tokenizer.encode_all(b"".join(documents), np.array([len(each) for each in documents]))
    rows = np.frombuffer(counts, np.int64).reshape(-1, 5).tolist()
    return np.frombuffer(ids, np.int32).tolist(), np.frombuffer(widths, np.uint32).tolist(), rows


@pytest.mark.parametrize("kind", KINDS)
def test_several_documents_have_the_tokens_of_each(kind):
    alone, together = (WorkerTokenizer(TOKENIZERS[kind]().to_str(), "", TINY) for _ in range(2))
    documents = [text.encode() for text in DOCUMENTS]
    for _ in range(2):  # where few documents are exact, the second request takes another way
        ids, widths, rows = together_of(together, documents)
        for document, (count, *stated) in zip(documents, rows, strict=True):
            own, spans, counts = alone.encode(document)
            assert np.frombuffer(own, np.int32).tolist() == ids[:count]
            assert np.frombuffer(spans, np.uint32).tolist() == widths[:count]
            assert stated == [*COUNTS.unpack(counts), alone._vanished, alone._in_pieces]
            ids, widths = ids[count:], widths[count:]
        assert not ids
        assert not widths


def test_a_rewriting_tokenizer_is_not_asked_twice(monkeypatch):
    tokenizer = WorkerTokenizer(TOKENIZERS["wordpiece"]().to_str(), "", TINY)
    documents = [b"THE CAT", b"The Mat", b"SAT"]
    together_of(tokenizer, documents)
    assert not tokenizer._spells
    monkeypatch.setattr(tokenizer, "_exact_of", None)
    together_of(tokenizer, documents)


@pytest.mark.parametrize("kind", ["byte_level_bpe", "wordpiece", "metaspace_unigram"])
def test_the_tokenizer_of_this_process_cuts_the_answer(kind):
    tokenizer = BackendTokenizer(json.loads(TOKENIZERS[kind]().to_str()), {}, "x")
    assert tokenizer.encode_all([]) == []
    for text, found in zip(DOCUMENTS, tokenizer.encode_all(DOCUMENTS), strict=True):
        one, other = (asdict(tokens) for tokens in (tokenizer.encode(text), found))
        for name, value in one.items():
            assert np.array_equal(value, other[name]), (text, name)
            assert getattr(value, "dtype", None) == getattr(other[name], "dtype", None)
