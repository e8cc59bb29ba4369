"""Byte spans are exact where tokens spell the text, and tile the text for any offsets."""

import itertools

import numpy as np
import pytest
from checkpoint import whole_spans
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from lossprobe.checkpoint.tokenizers.spans import (
    AlignedSpans,
    ExactSpans,
    added_tokens,
    byte_level_alphabet,
    byte_offsets,
    component_types,
    vocabulary_bytes,
)

TEXTS = st.text(max_size=40)


def runs_of(items, cuts):
    """Return a list in runs, cut where `cuts` say; some may be empty."""
    edges = [0, *sorted(cut % (len(items) + 1) for cut in cuts), len(items)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def stops_of(spans):
    return np.cumsum(np.frombuffer(spans.widths, np.uint32), dtype=np.int64)


def exact_stops(pieces, text, cuts=()):
    """Return the span ends of pieces that come in runs, or None when they do not spell the text."""
    spans = ExactSpans(text, dict(enumerate(pieces)))
    for run in runs_of(range(len(pieces)), cuts):
        spans.add(run)
    return stops_of(spans) if spans.finish() else None


def aligned_stops(offsets, text, cuts=()):
    """Return the result of `AlignedSpans` for offsets in characters that are added in runs."""
    spans, byte_at = AlignedSpans(), byte_offsets(text)
    for run in runs_of(offsets, cuts):
        at = np.array(run, np.int64).reshape(-1, 2)
        spans.add(byte_at[at[:, 0]], byte_at[at[:, 1]])
    uncovered, tiles = spans.finish(len(text.encode()))
    return stops_of(spans), uncovered, tiles


CUTS = st.lists(st.integers(0, 50), max_size=5)
BLANKS_AND_LETTERS = st.lists(st.sampled_from([b"", b" ", b"a", b" a", b"  "]), max_size=6)


@given(BLANKS_AND_LETTERS, st.sampled_from(["", " ", "  ", "a", " a", "  a", "a a", " a a"]), CUTS)
def test_exact_spans_are_those_of_the_whole_in_whatever_runs_tokens_come(pieces, text, cuts):
    got = exact_stops(pieces, text.encode(), cuts)
    assert (None if got is None else got.tolist()) == whole_spans.exact_stops(pieces, text.encode())


def test_pieces_that_cannot_spell_the_text_are_found_out_early():
    spans = ExactSpans(b"abc", {0: b"a", 1: b"x"})
    assert spans.add([0])
    assert not spans.add([1])
    assert not spans.finish()


def test_the_byte_alphabet_is_that_of_the_library():
    table = byte_level_alphabet()
    assert sorted(table) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(table.values()) == list(range(256))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for code in [*range(0x250), 0x20AC, 0x1F600]:
        ((shown, _),) = split.pre_tokenize_str(chr(code))
        assert bytes(table[character] for character in shown) == chr(code).encode()


@given(TEXTS, st.data())
def test_pieces_that_spell_the_text_give_exact_spans(text, data):
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    edges = [0, *cuts, len(raw)]
    pieces = [raw[a:b] for a, b in itertools.pairwise(edges)]
    assert exact_stops(pieces, raw).tolist() == edges[1:]
    # A blank that the tokenizer put before the text is no part of it, as a piece of its own or joined to the first.
    assert exact_stops([b" ", *pieces], raw).tolist() == [0, *edges[1:]]
    assert exact_stops([b" " + pieces[0], *pieces[1:]], raw).tolist() == edges[1:]


@pytest.mark.parametrize(
    ("pieces", "text"), [([b"a"], b"b"), ([b"ab"], b"a"), ([b"x", b"a"], b"a"), ([b"  ", b"a"], b"a"), ([], b"a")]
)
def test_pieces_that_spell_another_text_are_no_spans(pieces, text):
    assert exact_stops(pieces, text) is None


def test_no_pieces_and_no_text():
    assert exact_stops([], b"").tolist() == []
    stops, uncovered, tiles = aligned_stops([], "ab")
    assert (stops.tolist(), uncovered, tiles) == ([], 2, True)


@st.composite
def texts_with_offsets(draw):
    """Return a text and offsets as tokenizers give them: in order, with gaps, overlaps, repeats and empty ones."""
    text = draw(st.text(min_size=1, max_size=30))
    count = draw(st.integers(1, 12))
    positions = st.integers(0, len(text))
    starts = sorted(draw(st.lists(positions, min_size=count, max_size=count)))
    stops = sorted(draw(st.lists(positions, min_size=count, max_size=count)))
    return text, [(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True)]


@given(texts_with_offsets(), CUTS, st.booleans())
def test_aligned_spans_are_those_of_the_whole_in_whatever_runs_tokens_come(case, cuts, backwards):
    text, offsets = case
    offsets = offsets[::-1] if backwards else offsets
    stops, uncovered, tiles = aligned_stops(offsets, text, cuts)
    assert (stops.tolist(), uncovered, tiles) == whole_spans.aligned_stops(offsets, text)


@given(texts_with_offsets(), CUTS)
def test_aligned_spans_tile_the_text(case, cuts):
    text, offsets = case
    stops, uncovered, tiles = aligned_stops(offsets, text, cuts)
    assert tiles
    assert len(stops) == len(offsets)
    assert (np.diff(stops, prepend=0) >= 0).all()
    assert stops[-1] == len(text.encode())
    bare = set(range(len(text))) - {index for start, stop in offsets for index in range(start, stop)}
    assert uncovered == sum(len(text[index].encode()) for index in bare)


@given(TEXTS)
def test_one_token_for_each_character_gives_the_characters(text):
    offsets = [(index, index + 1) for index in range(len(text))]
    stops, uncovered, tiles = aligned_stops(offsets, text)
    assert stops.tolist() == np.cumsum([len(character.encode()) for character in text]).tolist()
    assert (uncovered, tiles) == (0, True)


@pytest.mark.parametrize(
    ("offsets", "text", "stops", "uncovered"),
    [
        ([(0, 1)] * 4, "😀", [1, 2, 3, 4], 0),  # one character, a token for each byte
        ([(0, 1), (0, 1), (1, 2)], "漢a", [1, 3, 4], 0),  # two tokens share three bytes
        ([(0, 1), (2, 3), (2, 3)], "a é", [1, 3, 4], 1),  # the blank goes to the token after it
        ([(0, 1), (1, 1), (1, 2)], "ab", [1, 1, 2], 0),  # a token that covers nothing
        ([(1, 2)], "abc", [3], 2),  # what is left at the end goes to the last token
    ],
)
def test_aligned_spans_by_hand(offsets, text, stops, uncovered):
    got = aligned_stops(offsets, text)
    assert (got[0].tolist(), got[1], got[2]) == (stops, uncovered, True)


def test_offsets_that_run_backwards_are_called_a_guess():
    stops, _, tiles = aligned_stops([(2, 3), (0, 1)], "abc")
    assert not tiles
    assert stops.tolist() == [3, 3]


def test_what_each_id_stands_for():
    added = [{"id": 9, "content": "<s>"}]
    byte_level = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}, "added_tokens": added}
    assert vocabulary_bytes(byte_level, {"Ġa": 0, "Ã": 1, "漢": 2, "<s>": 9}) == (
        "byte-level BPE",
        {0: b" a", 1: b"\xc3", 2: "漢".encode(), 9: b"<s>"},
    )
    fallback = {"model": {"type": "BPE", "byte_fallback": True}, "decoder": {"type": "Replace", "pattern": "▁"}}
    assert vocabulary_bytes(fallback, {"▁a": 0, "<0xE2>": 1}) == ("BPE with byte fallback", {0: b" a", 1: b"\xe2"})
    plain = {"model": {"type": "BPE"}}
    assert vocabulary_bytes(plain, {"▁a": 0, "<0xE2>": 1}) == ("BPE", {0: "▁a".encode(), 1: b"<0xE2>"})
    pieces = {"model": {"type": "WordPiece", "continuing_subword_prefix": "##"}}
    assert vocabulary_bytes(pieces, {"a": 0, "##b": 1}) == ("WordPiece", {0: b"a", 1: b"b"})


def test_added_tokens_have_the_ids_that_the_library_gave_them():
    definition = {"added_tokens": [{"id": 2**31, "content": "<s>"}, {"id": 7, "content": "</s>"}]}
    assert list(added_tokens(definition, {"<s>": 3})) == [3, 7]
    assert added_tokens({}, {}) == {}


def test_component_types_are_found_at_every_depth():
    nested = {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"x": {"type": "ByteFallback"}}, "type"]}
    assert component_types(nested) == {"Sequence", "Fuse", "ByteFallback"}
    assert component_types(None) == set()
