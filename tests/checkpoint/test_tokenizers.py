"""Tokenizers of every kind give the ids of transformers and cover the bytes of the text."""

import itertools

import numpy as np
import pytest
import transformers
from checkpoint import builders
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer

KINDS = sorted(builders.TOKENIZERS)
AWKWARD = [
    *("the cat", "CAT", "é", "e\u0301", "İ", "ﬀ", "ſ", "漢字", "😀", "\U0001f468\u200d\U0001f469"),
    *("\r\n", "\0", "  ", "\t", "\u00a0", "\u2581", "\u202e", "\ufeff"),
    *("<s>", "</s>", "<unk>", "[UNK]", "[CLS]", "<|endoftext|>", "<0x41>", "##at"),
]
TEXTS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(AWKWARD), max_size=8).map("".join))


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """The same tokenizers, opened by transformers."""
    root = tmp_path_factory.mktemp("tokenizers")
    opened = {}
    for name, build in builders.TOKENIZERS.items():
        (root / name).mkdir()
        build().save(str(root / name / "tokenizer.json"))
        builders.write_settings(root / name)
        opened[name] = transformers.AutoTokenizer.from_pretrained(root / name)
    return opened


def pieces(tokens, text):
    raw = text.encode()
    starts = [0, *tokens.byte_stop.tolist()]
    return [raw[a:b] for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
@example("")
@example("   ")
@example("<s>the <unk> cat</s> <|endoftext|>[UNK]")
def test_ids_are_those_of_transformers_and_spans_tile_the_text(tokenizers_by_kind, references, kind, text):
    tokens = tokenizers_by_kind[kind].encode(text)
    assert tokens.ids.tolist() == references[kind](text, add_special_tokens=False)["input_ids"]
    assert (tokens.ids.dtype, tokens.byte_stop.dtype, tokens.unknown.dtype) == (np.int32, np.int64, np.bool_)
    assert len(tokens.ids) == len(tokens.byte_stop) == len(tokens.unknown)
    assert b"".join(pieces(tokens, text)) == (text.encode() if len(tokens.ids) else b"")
    assert (np.diff(tokens.byte_stop, prepend=0) >= 0).all()
    assert 0 <= tokens.normalized_bytes <= len(text.encode())
    assert tokens.tiles or not len(tokens.ids)


@given(text=TEXTS)
@settings(max_examples=60, deadline=None)
def test_byte_level_spans_are_the_bytes_that_the_ids_stand_for(tokenizers_by_kind, text):
    tokenizer = tokenizers_by_kind["byte_level_bpe"]
    tokens = tokenizer.encode(text)
    assert pieces(tokens, text) == [tokenizer.token_bytes(int(index)) for index in tokens.ids]
    assert (tokens.normalized_bytes, tokens.tiles, tokens.unknown.any()) == (0, True, False)


@given(text=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_byte_fallback_spans_are_those_bytes_less_the_blank_before_the_text(tokenizers_by_kind, text):
    tokenizer = tokenizers_by_kind["sentencepiece_bpe"]
    tokens = tokenizer.encode(text)
    spelled = b"".join(tokenizer.token_bytes(int(index)) for index in tokens.ids)
    if "\u2581" not in text and not any(name in text for name in builders.SPECIALS):
        assert spelled == (" " + text if text else "").encode()
    assert (tokens.normalized_bytes, tokens.unknown.any()) == (0, False)


@pytest.mark.parametrize(
    ("kind", "text", "expected", "normalized"),
    [
        ("byte_level_bpe", "é😀\r\n", [b"\xc3\xa9", b"\xf0", b"\x9f", b"\x98", b"\x80", b"\r", b"\n"], 0),
        ("byte_level_bpe", "the cat<|endoftext|>", [b"the", b" cat", b"<|endoftext|>"], 0),
        ("sentencepiece_bpe", "the cat", [b"the", b" cat"], 0),
        ("sentencepiece_bpe", "é", [b"", b"\xc3", b"\xa9"], 0),
        ("sentencepiece_bpe", "a<s>c</s>", [b"", b"a", b"<s>", b"", b"c", b"</s>"], 0),
        ("metaspace_unigram", "the ☃ cat", [b"the", b" ", "☃".encode(), b" cat"], 0),
        ("metaspace_unigram", "☃", [b"", "☃".encode()], 0),
        ("wordpiece", "The  Càt ", [b"The", "  Càt ".encode()], 7),  # T, three blanks, C and à
        ("word_level", "the\ncat", [b"the", b"\ncat"], 1),
    ],
)
def test_spans_by_hand(tokenizers_by_kind, kind, text, expected, normalized):
    tokens = tokenizers_by_kind[kind].encode(text)
    assert pieces(tokens, text) == expected
    assert (tokens.normalized_bytes, tokens.tiles) == (normalized, True)


@pytest.mark.parametrize("kind", ["wordpiece", "word_level"])
def test_text_without_a_token_cannot_be_tiled(tokenizers_by_kind, kind):
    tokens = tokenizers_by_kind[kind].encode(" \n ")
    assert (len(tokens.ids), tokens.normalized_bytes, tokens.tiles) == (0, 3, False)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("word_level", "the dog sat", [False, True, False]),
        ("wordpiece", "the dog", [False, True]),
        ("metaspace_unigram", "cat☃", [False, True]),
        ("metaspace_unigram", "cat<unk>", [False, False]),  # that text, not text that is not known
        ("byte_level_bpe", "the☃", [False] * 4),
    ],
)
def test_what_is_not_in_the_vocabulary(tokenizers_by_kind, kind, text, expected):
    assert tokenizers_by_kind[kind].encode(text).unknown.tolist() == expected


def test_a_special_token_that_settings_call_unknown_is_none(tokenizers_by_kind):
    # GPT-2 names <|endoftext|> as its unknown token, but its model never gives an unknown token.
    tokenizer = BackendTokenizer(builders.definition(), {"unk_token": "<|endoftext|>"}, "x")
    assert tokenizer.encode("the<|endoftext|>").unknown.tolist() == [False, False]


@pytest.mark.parametrize(
    ("kind", "described"),
    [
        ("byte_level_bpe", "byte-level BPE"),
        ("sentencepiece_bpe", "BPE with byte fallback"),
        ("metaspace_unigram", "Unigram"),
        ("wordpiece", "WordPiece"),
        ("word_level", "WordLevel"),
    ],
)
def test_kind_and_bytes_of_ids(tokenizers_by_kind, kind, described):
    tokenizer = tokenizers_by_kind[kind]
    vocabulary = builders.TOKENIZERS[kind]().get_vocab()
    assert tokenizer.kind == described
    assert tokenizer.token_bytes(len(vocabulary)) == b""
    known = {
        "byte_level_bpe": {"Ġcat": b" cat", "Ã": b"\xc3", "<|endoftext|>": b"<|endoftext|>"},
        "sentencepiece_bpe": {"▁cat": b" cat", "<0xC3>": b"\xc3", "<s>": b"<s>"},
        "metaspace_unigram": {"▁cat": b" cat", "<unk>": b"<unk>"},
        "wordpiece": {"cat": b"cat", "##at": b"at", "[CLS]": b"[CLS]"},
        "word_level": {"cat": b"cat", "[UNK]": b"[UNK]"},
    }
    assert {name: tokenizer.token_bytes(vocabulary[name]) for name in known[kind]} == known[kind]


def test_special_ids(tokenizers_by_kind):
    found = {kind: sorted(tokenizers_by_kind[kind].special_ids) for kind in KINDS}
    assert found == {
        "byte_level_bpe": [0],
        "metaspace_unigram": [0, 1, 2],
        "sentencepiece_bpe": [0, 1, 2],
        "word_level": [],
        "wordpiece": [0, 1],
    }
