"""Tests the sample of a text for the self-check: its number of tokens, whole characters, unchanged documents."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ByteTokenizer

from lossprobe.checkpoint.interface import Tokens
from lossprobe.passes.selfcheck import SampleSource
from lossprobe.text.documents import Document, StringSource


class Pairs(ByteTokenizer):
    """A tokenizer with one token for every two bytes, which may cut a character in two."""

    def encode(self, text: str) -> Tokens:
        data = text.encode()
        stops = np.array([*range(2, len(data), 2), len(data)] if data else [], np.int64)
        return Tokens(np.full(len(stops), 97, np.int32), stops, np.zeros(len(stops), bool))


@pytest.mark.parametrize(
    ("tokenizer", "tokens", "texts"),
    [
        (ByteTokenizer(), 9, ["abcd", "efghi"]),
        (ByteTokenizer(), 10, ["abcd", "efghi"]),  # the third document is not begun
        (ByteTokenizer(), 8, ["abcd", "efgh"]),
        (ByteTokenizer(), 4, ["abcd"]),
        (ByteTokenizer(), 1, ["a"]),
        (ByteTokenizer(), 14, ["abcd", "efghi", "é☃"]),
        (ByteTokenizer(), 13, ["abcd", "efghi", "é"]),  # no part of a character
        (ByteTokenizer(), 99, ["abcd", "efghi", "é☃"]),
        (Pairs(), 4, ["abcd", "efgh"]),
        (Pairs(), 5, ["abcd", "efghi"]),
        (Pairs(), 7, ["abcd", "efghi", "é"]),
    ],
)
def test_samples(tokenizer, tokens, texts):
    whole = ["abcd", "efghi", "é☃"]
    if tokens == 10:
        texts = ["abcd", "efghi", ""]  # one byte is half a character
    source = SampleSource(StringSource(whole, "name", ["notice"]), tokenizer, tokens)
    assert [document.text for document in source.documents()] == texts
    assert [document.text for document in source.documents()] == texts, "again"
    assert (source.name, source.notices) == ("name", ["notice"])
    assert source.whole == (texts == whole)


def test_a_sample_is_of_documents_as_they_are():
    class Placed(StringSource):
        def documents(self):
            yield Document("abc", "file", 3, 7, '{"x": 1}')

    assert list(SampleSource(Placed([]), ByteTokenizer(), 2).documents()) == [Document("ab", "file", 3, 7, '{"x": 1}')]
