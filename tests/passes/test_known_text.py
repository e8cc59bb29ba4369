"""Tests a text that several passes share: same documents, hash and tokens, and every change is found."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from fakes import ByteTokenizer

from lossprobe.checkpoint.options import LoadOptions
from lossprobe.checkpoint.spec import CheckpointSpec
from lossprobe.errors import TextError
from lossprobe.passes import known_text
from lossprobe.passes.known_text import KeptTokens, KnownText, text_sha256, tokens_of
from lossprobe.text.documents import Document, StringSource
from lossprobe.text.fingerprint import fingerprint

TEXTS = ["abc", "", "a longer one", "abc"]


@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_documents_and_hash_are_those_of_the_source(monkeypatch, kept):
    monkeypatch.setattr(known_text, "KEPT_TEXT_BYTES", kept)
    source = StringSource(TEXTS, "name")
    known = KnownText(source)
    assert (known.name, known.notices) == ("name", source.notices)
    assert known.notices is source.notices
    assert text_sha256(known) == text_sha256(source) == fingerprint(source)
    for _ in range(2):
        assert list(known.documents()) == list(source.documents())


def test_a_long_text_that_changes_is_refused_and_a_short_one_stays_as_it_was_read(monkeypatch):
    source = StringSource(TEXTS)
    short, long = KnownText(source), KnownText(source)
    before = list(short.documents())
    monkeypatch.setattr(known_text, "KEPT_TEXT_BYTES", 0)
    long.fingerprint()
    source.texts = [*TEXTS, "more"]
    assert list(short.documents()) == before
    with pytest.raises(TextError, match="changed while it was read"):
        list(long.documents())


def test_tokens_are_kept_by_rules_and_text_and_shared_with_texts_made_of_it(monkeypatch):
    monkeypatch.setattr(known_text, "KEPT_TOKEN_BYTES", 200)
    tokens, one, other = KeptTokens(), ByteTokenizer(), ByteTokenizer(unknown_byte=ord("a"))
    known = KnownText(StringSource(TEXTS), tokens)
    assert known.tokens("abc", one) is known.tokens("abc", ByteTokenizer())
    assert known.tokens("abc", one).unknown.tolist() != known.tokens("abc", other).unknown.tolist()
    made = known.derived("first", lambda text: StringSource([next(iter(text.documents())).text]))
    assert made is known.derived("first", lambda _: pytest.fail("made again"))
    assert tokens_of(made, Document("abc", "", 1, 0), one) is known.tokens("abc", one)
    assert known.tokens("x" * 300, one) is not known.tokens("x" * 300, one), "above the limit"


def test_a_checkpoint_spec_is_plain_data():
    spec = CheckpointSpec(Path("model"), LoadOptions(dtype="float16", ignore_config=("a",)), desmooth=0.1)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len({spec, pickle.loads(pickle.dumps(spec))}) == 1
