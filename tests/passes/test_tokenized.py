"""Documents that several tokenizers tokenize at once have the tokens of one, in order."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
from bundled import CHECKPOINT
from fakes import ByteTokenizer

from lossprobe.checkpoint.detect import open_checkpoint
from lossprobe.checkpoint.interface import CopiedTokenizer
from lossprobe.checkpoint.tokenizers import sandbox
from lossprobe.errors import CheckpointError
from lossprobe.passes import tokenized as module
from lossprobe.passes.tokenized import Tokenizing
from lossprobe.text.documents import StringSource

TEXTS = [f"{number} bottles of beer; " * (number % 7) for number in range(60)]


class Copied(ByteTokenizer):
    """A tokenizer of bytes with copies, which take longer for some texts; it knows which of them worked at once."""

    def __init__(self, lock=None) -> None:
        super().__init__()
        self.lock = lock or threading.Barrier(3)

    def copies(self):
        return [Copied(self.lock), Copied(self.lock)]

    def encode_all(self, texts):
        return [self.encode(text) for text in texts]

    def encode(self, text):
        if text.startswith("5 "):
            self.lock.wait(30)  # all three must be here at once
        time.sleep(random.random() / 200)
        if text == "bad":
            raise CheckpointError("tokenizer.failed", "bad")
        return super().encode(text)


def ids_of(texts, tokenizer, **choices):
    source = StringSource(texts)
    choices = {"together": 1} | choices
    return [tokens.ids.tolist() for _, tokens in Tokenizing(source, tokenizer, **choices).of(source.documents())]


def test_the_tokens_are_in_order_and_several_are_made_at_once():
    texts = [*TEXTS[6:], "5 a", "5 b", "5 c", *TEXTS[6:]]
    assert ids_of(texts, Copied(), short=40) == ids_of(texts, ByteTokenizer())


def test_few_documents_wait_in_memory(monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 50)
    source, read = StringSource(TEXTS[6:]), []
    documents = (read.append(document) or document for document in source.documents())
    for number, (document, _) in enumerate(Tokenizing(source, Copied(), short=1, together=1).of(documents)):
        assert document is read[number]
        assert sum(len(each.text) for each in read[number + 1 :]) <= 50 + 150


def test_a_text_that_cannot_be_tokenized_is_refused():
    with pytest.raises(CheckpointError, match="bad"):
        ids_of([*TEXTS[6:20], "bad", *TEXTS[6:]], Copied(), short=40)


def test_copies_of_a_real_tokenizer_work(monkeypatch):
    monkeypatch.setattr(sandbox, "_threads", lambda: 3)
    tokenizer = open_checkpoint(CHECKPOINT).tokenizer
    assert isinstance(tokenizer, CopiedTokenizer)
    assert len(tokenizer.copies()) == 2
    first, second, together = (
        ids_of(TEXTS, tokenizer, **choices) for choices in ({"short": 100}, {}, {"short": 100, "together": 500})
    )
    assert first == second == together
    assert np.concatenate(first).size > 1000
    monkeypatch.setattr(sandbox, "_threads", lambda: 1)
    assert tokenizer.copies() == []
