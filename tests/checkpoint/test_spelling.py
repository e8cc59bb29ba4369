"""Text that a tokenizer drops or rewrites is counted and located; checked by simple code on the vocabulary."""

import itertools
import json
from functools import cache

import numpy as np
import pytest
from checkpoint import builders
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from lossprobe.checkpoint.tokenizers.backend import BackendTokenizer
from lossprobe.checkpoint.tokenizers.frames import COUNTS, MORE_COUNTS
from lossprobe.checkpoint.tokenizers.pieces import Sizes
from lossprobe.checkpoint.tokenizers.sandbox_worker import WorkerTokenizer
from lossprobe.checkpoint.tokenizers.spelling import SpelledSpans, Spelling, differing

AWKWARD = [
    *("the cat", "The CAT", "é", "É", "e\u0301", "İ", "ﬀ", "Ⅷ", "漢字", "😀", "\U0001f468\u200d\U0001f469", "“", "☃"),
    *("\r\n", "\n", "\0", "  ", " ", "\t", "\u00a0", "\u2581", "\ufeff", "a", "b", ",", "~"),
    *("<s>", "<unk>", "[UNK]", "<|endoftext|>", "<0x41>", "Ġthe", "##at"),
]
TEXTS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(AWKWARD), max_size=10).map("".join))


def normalized(kind, normalizer):
    tokenizer = builders.TOKENIZERS[kind]()
    tokenizer.normalizer = normalizer
    return json.loads(tokenizer.to_str())


def without(kind, *names, **model):
    """Return a definition whose vocabulary lacks some tokens, and every merge that needs them."""
    content = builders.definition(kind)
    vocabulary = [name for name in content["model"]["vocab"] if name not in names]
    merges = [pair for pair in content["model"]["merges"] if not any(name in "".join(pair) for name in names)]
    content["model"] |= {"vocab": {name: index for index, name in enumerate(vocabulary)}, "merges": merges} | model
    return content


def plain_bpe():
    """A BPE of letters that names no unknown token, as in many a tutorial."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "c": 3, ",": 4}, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return json.loads(tokenizer.to_str())


def with_doubled_token():
    """An added token whose name the vocabulary holds too, where it stands for a blank and a word."""
    tokenizer = builders.byte_level_bpe()
    tokenizer.add_tokens(["Ġthe", AddedToken("Ġ☃", normalized=False)])
    return json.loads(tokenizer.to_str())


def word_marks():
    """T5's kind: white space dropped, and every word marked instead."""
    tokenizer = builders.metaspace_unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return json.loads(tokenizer.to_str())


def ends_of_words():
    """GPT-1's kind: the last piece of a word is marked."""
    vocabulary = {"a</w>": 0, "b": 1, "a": 2, "ba</w>": 3, "<unk>": 4}
    model = models.BPE(vocab=vocabulary, merges=[("b", "a</w>")], end_of_word_suffix="</w>", unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return json.loads(tokenizer.to_str())


DAMAGED = {
    "lower": normalized("byte_level_bpe", normalizers.Lowercase()),
    "nfc": normalized("byte_level_bpe", normalizers.NFC()),
    "nfkc": normalized("byte_level_bpe", normalizers.NFKC()),
    "accents": normalized("byte_level_bpe", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "bert": normalized("byte_level_bpe", normalizers.BertNormalizer()),
    "blanks": normalized("byte_level_bpe", normalizers.Replace(Regex(r"\s+"), " ")),
    "prepended": normalized("byte_level_bpe", normalizers.Prepend("th")),
    "marked lower": normalized("metaspace_unigram", normalizers.Lowercase()),
    "byte missing": without("byte_level_bpe", "Ã"),
    "bytes missing, unknown": without("byte_level_bpe", "â", "ĺ", unk_token="<|endoftext|>", fuse_unk=True),
    "fallback missing": without("sentencepiece_bpe", "<0xC3>"),
    "fallback missing, not fused": without("sentencepiece_bpe", "<0xC3>", "<0x7E>", fuse_unk=False),
    "fallback missing, no unknown": without("sentencepiece_bpe", "<0xC3>", unk_token=None),
    "plain": plain_bpe(),
    "doubled": with_doubled_token(),
    "word marks": word_marks(),
    "ends of words": ends_of_words(),
}
KINDS = DAMAGED | {name: builders.definition(name) for name in builders.TOKENIZERS}


@cache
def opened(kind):
    return BackendTokenizer(KINDS[kind], {}, kind)


def spans(tokens, text):
    raw = text.encode()
    return [raw[a:b] for a, b in itertools.pairwise([0, *tokens.byte_stop.tolist()])]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(max_examples=80, deadline=None)
@example("aéb the cat éé~")
@example("“é” ~~ ☃ é")
@example(" the\n cat  at the cat")
@example("The CAT e\u0301 ﬀ \r\n")
def test_what_is_said_to_be_kept_can_be_restored_from_the_ids(kind, text):
    tokenizer = opened(kind)
    tokens = tokenizer.encode(text)
    assert 0 <= tokens.vanished_bytes <= tokens.normalized_bytes
    assert b"".join(spans(tokens, text)) == (text.encode() if len(tokens.ids) else b"")
    if not tokens.tiles or tokens.normalized_bytes > tokens.vanished_bytes:
        return
    for id, unknown, span in zip(tokens.ids.tolist(), tokens.unknown.tolist(), spans(tokens, text), strict=True):
        piece = tokenizer.token_bytes(id)
        if tokens.vanished_bytes:
            assert covers(span, piece), (id, span)
            continue
        # Only a blank before a text, or after an added token, is none of the text; "Ġthe" may stand for two things.
        allowed = {piece, piece.removeprefix(b" ")} | ({b" the"} if piece == "Ġthe".encode() else set())
        assert unknown or span in allowed, (id, span)


def covers(span, piece):
    """Return whether a stretch of text holds the bytes of a piece in order, with others that vanished between them."""
    left = iter(span)
    return all(byte in left for byte in piece.removeprefix(b" ")) if piece.strip() else True


def lowered(text):
    """Return the bytes that lower case changes, character by character."""
    count = 0
    for character in text:
        one, other = character.encode(), character.lower().encode()
        same = sum(a == b for a, b in zip(one, other, strict=False)) if len(one) == len(other) else 0
        count += len(one) - same
    return count


@given(text=TEXTS.filter(lambda text: "<|" not in text))
@settings(max_examples=80, deadline=None)
@example("The CAT É İ ΑΣ 漢")
def test_lower_case_is_counted_byte_for_byte(text):
    tokens = opened("lower").encode(text)
    assert (tokens.normalized_bytes, tokens.tiles) == (lowered(text), True)


@given(text=TEXTS.filter(lambda text: "<|" not in text))
@settings(max_examples=80, deadline=None)
@example("aéb the cat éé")
def test_a_byte_without_a_token_vanishes_and_is_counted(text):
    tokenizer = opened("byte missing")
    tokens = tokenizer.encode(text)
    raw = text.encode()
    assert b"".join(map(tokenizer.token_bytes, tokens.ids.tolist())) == raw.replace(b"\xc3", b"")
    assert tokens.vanished_bytes == raw.count(b"\xc3")
    assert tokens.normalized_bytes == tokens.vanished_bytes
    assert tokens.tiles == (len(tokens.ids) > 0 or not text)
    for id, span in zip(tokens.ids.tolist(), spans(tokens, text)[:-1], strict=False):  # the rest goes to the last one
        assert span.replace(b"\xc3", b"") == tokenizer.token_bytes(id)


@given(text=TEXTS)
@settings(max_examples=80, deadline=None)
@example("a☃b c☃☃ab ☃ ab☃")
def test_characters_without_a_token_vanish_but_blanks_are_dropped(text):
    tokenizer = opened("plain")
    tokens = tokenizer.encode(text)
    kept = "".join(character for character in text if character in "abc,")
    assert b"".join(map(tokenizer.token_bytes, tokens.ids.tolist())) == kept.encode()
    blank = lambda character: character.isspace() and character not in "\x1c\x1d\x1e\x1f"  # noqa: E731 - no White_Space
    lost = [character for character in text if character not in "abc," and not blank(character)]
    assert tokens.vanished_bytes == sum(len(character.encode()) for character in lost)
    assert tokens.normalized_bytes == len(text.encode()) - len(kept)
    assert tokens.tiles == (len(tokens.ids) > 0 or not text)
    for id, span in zip(tokens.ids.tolist(), spans(tokens, text)[:-1], strict=False):
        assert bytes(byte for byte in span if byte in b"abc,") == tokenizer.token_bytes(id)


@pytest.mark.parametrize(
    ("kind", "text", "expected", "count"),
    [
        ("nfc", "e\u0301x", [b"\x65", b"\xcc\x81x"], 3),  # the mark goes to the token after it
        ("nfkc", "ﬀ", [b"\xef", b"\xac\x80"], 3),  # two letters share what was one of three bytes
        ("accents", "é a", [b"\xc3\xa9", b" ", b"a"], 2),
        ("bert", "The\n", [b"The", b"\n"], 2),
        ("blanks", "a  b\n", [b"a", b"  ", b"b", b"\n"], 2),
        ("prepended", "a", [b"", b"a"], 1),  # no byte is lost, but what was put before it cannot be told from text
        ("marked lower", "The ☃", [b"The", b" ", "☃".encode()], 1),
        ("bytes missing, unknown", "a☃b", [b"a", b"\xe2\x98", b"\x83", b"b"], 0),
        ("doubled", "the theĠthe Ġ☃", [b"the", b" the", "Ġthe".encode(), b" ", "Ġ☃".encode()], 0),
        ("word marks", " the\n cat  at", [b" the", b"\n cat", b"  ", b"at"], 2),
        ("ends of words", "ba a", [b"ba", b" a"], 1),
        ("sentencepiece_bpe", "a\u2581", [b"", b"a", "\u2581".encode()], 3),  # a mark in a text reads as a blank
    ],
)
def test_spans_and_counts_by_hand(kind, text, expected, count):
    tokens = opened(kind).encode(text)
    assert [bytes(span) for span in spans(tokens, text)] == expected
    assert (tokens.normalized_bytes, tokens.vanished_bytes, tokens.tiles) == (count, 0, True)


def test_one_missing_byte_token_leaves_the_spans_of_a_text_that_is_one_word_exact():
    # Without a pre-tokenizer all of a text is one word, and the offsets behind what vanished are those of other text.
    text = "the cat é sat é"
    tokens = opened("fallback missing, no unknown").encode(text)
    # The two blanks around the first é are one token: nothing is left between them.
    assert spans(tokens, text) == [b"the", b" cat", " é ".encode(), b"s", b"a", b"t", " é".encode()]
    assert (tokens.vanished_bytes, tokens.normalized_bytes, tokens.tiles) == (4, 4, True)


def test_an_unknown_token_that_comes_after_the_bytes_behind_it_is_found_out():
    # The library holds an unknown token back until the next character that has a token of its own.
    tokenizer = opened("fallback missing")
    tokens = tokenizer.encode("aéb")
    assert tokens.unknown.tolist() == [False, False, False, True]
    assert tokenizer.token_bytes(int(tokens.ids[2])) == b"b"
    assert not tokens.tiles
    assert opened("fallback missing").encode("é b").tiles  # here it is in its place


@pytest.mark.parametrize("kind", ["byte missing", "plain", "lower", "word marks"])
def test_a_long_document_in_pieces_keeps_what_the_whole_keeps(kind):
    data = "The cat, abc é the\n\n cat ☃ ab, ".encode() * 60
    content = json.dumps(KINDS[kind])
    whole, cut = (WorkerTokenizer(content, "", sizes) for sizes in (Sizes(), Sizes(piece=80, overlap=40, words=2)))
    assert cut.encode(data) == whole.encode(data)
    assert cut.remarks() == whole.remarks()
    normalized_bytes, _ = COUNTS.unpack(whole.encode(data)[2])
    vanished = MORE_COUNTS.unpack(whole.remarks()[0])[0] if whole.remarks() else 0
    one = opened(kind).encode(data.decode())
    assert (one.normalized_bytes, one.vanished_bytes) == (normalized_bytes, vanished)
    assert vanished == {"byte missing": 60, "plain": 60 * (len(b"Thetthet") + 2 + 3)}.get(kind, 0)  # é and ☃


GROUPS = st.lists(st.tuples(st.sampled_from([b"a", b" a", b"ab", "é".encode(), b" "]), st.booleans()), max_size=12)


@given(GROUPS, st.lists(st.integers(0, 12), max_size=4))
def test_tokens_may_come_in_whatever_runs(tokens, cuts):
    text = b"".join(piece.upper() if changed else piece for piece, changed in tokens)
    stops = np.cumsum([len(piece) for piece, _ in tokens], dtype=np.int64)
    starts = np.append(0, stops)[:-1][: len(stops)]
    ids = list(range(len(tokens)))
    spelling = Spelling({id: piece for id, (piece, _) in zip(ids, tokens, strict=True)})
    found = []
    for edges in ([0, len(ids)], [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]):
        spelled = SpelledSpans(text, spelling)
        for first, last in itertools.pairwise(edges):
            spelled.add(ids[first:last], starts[first:last], stops[first:last])
        found.append((spelled.finish(), bytes(spelled.widths)))
    assert found[0] == found[1]
    assert found[0][0].normalized == sum(differing(piece.upper(), piece) for piece, changed in tokens if changed)


def test_the_mark_of_a_blank_can_be_another_one():
    tokenizer = builders.metaspace_unigram()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="_")
    tokenizer.decoder = decoders.Metaspace(replacement="_")
    content = json.loads(tokenizer.to_str())
    content["model"]["vocab"] = [[name.replace("▁", "_"), score] for name, score in content["model"]["vocab"]]
    tokens = BackendTokenizer(content, {}, "x").encode("the cat")
    assert (spans(tokens, "the cat"), tokens.normalized_bytes) == ([b"the", b" cat"], 0)
