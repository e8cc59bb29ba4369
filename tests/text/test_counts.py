"""Bytes, characters and words of a text and of byte spans of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossprobe.text.counts import TextCounts, count_spans, count_text, joined, next_character, slices, this_character

TEXTS = st.text(alphabet="ab é漢😀 \t\n\u00a0\u3000\x1c", max_size=30)


def counts_by_hand(text: str, start: int, stop: int) -> TextCounts:
    """Go through the characters: each, and each word, belongs to the span that holds its first byte."""
    characters = words = at = 0
    for index, character in enumerate(text):
        if start <= at < stop:
            characters += 1
            words += not character.isspace() and (index == 0 or text[index - 1].isspace())
        at += len(character.encode())
    return TextCounts(stop - start, characters, words)


@given(TEXTS, st.data())
def test_spans_count_what_starts_in_them(text, data):
    size = len(text.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))  # anywhere, also inside a character
    starts, stops = np.array([0, *cuts]), np.array([*cuts, size])
    spans = count_spans(text, starts, stops)
    assert spans == [counts_by_hand(text, start, stop) for start, stop in zip(starts, stops, strict=True)]
    total = TextCounts(
        sum(span.bytes for span in spans), sum(span.characters for span in spans), sum(span.words for span in spans)
    )
    assert total == count_text(text)
    assert count_text(text) - total == TextCounts(0, 0, 0)


@given(TEXTS, st.data())
def test_joined_spans_count_the_same(text, data):
    size = len(text.encode())
    cuts = np.array([0, *sorted(data.draw(st.lists(st.integers(0, size), max_size=8))), size])
    kept = np.array([data.draw(st.booleans()) for _ in cuts[1:]] or [True])
    starts, stops = cuts[:-1][kept], cuts[1:][kept]
    if len(starts):
        together = joined(starts, stops)
        assert sum(count_spans(text, *together), TextCounts(0, 0, 0)) == sum(
            (counts_by_hand(text, start, stop) for start, stop in zip(starts, stops, strict=True)), TextCounts(0, 0, 0)
        )
        assert (together[0][1:] > together[1][:-1]).all()


@given(TEXTS, st.integers(1, 7))
def test_a_text_is_counted_alike_in_slices_of_any_size(text, size):
    assert list(slices(text, 100)) == ([text] if text else [])
    assert "".join(slices(text, size)) == text
    assert all(len(piece) <= size for piece in slices(text, size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "__defaults__", (size,))
        assert count_text(text) == TextCounts(len(text.encode()), len(text), len(text.split()))


@given(TEXTS)
def test_spans_of_a_text_are_those_of_its_bytes(text):
    starts, stops = np.array([0]), np.array([len(text.encode())])
    assert count_spans(text.encode(), starts, stops) == count_spans(text, starts, stops) == [count_text(text)]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", (0, 0, 0)),
        (" \n ", (3, 3, 0)),
        ("a b\u00a0c\x1cd", (8, 7, 4)),  # no-break space and file separator are white space, as in str.split
        ("漢字 😀", (11, 4, 2)),
        ("don't stop-now", (14, 14, 2)),
        ("e\u0301", (3, 2, 1)),  # a combining accent is a code point of its own
    ],
)
def test_whole_texts(text, counts):
    assert count_text(text) == TextCounts(*counts)


def test_character_borders():
    data = "a漢b".encode()  # bytes: a=0, 漢=1..3, b=4
    assert [next_character(data, at) for at in range(6)] == [0, 1, 4, 4, 4, 5]
    assert [this_character(data, at) for at in range(6)] == [0, 1, 1, 1, 4, 5]
