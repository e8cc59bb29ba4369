"""Texts that one command reads, hashes and tokenizes only once for all its passes, as far as bounded memory allows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from lossprobe.checkpoint.interface import CopiedTokenizer, Tokenizer, Tokens
from lossprobe.errors import TextError
from lossprobe.plan.labels import label_tokens
from lossprobe.text.documents import Document, Source
from lossprobe.text.examples import DataKind, memory_of
from lossprobe.text.fingerprint import Fingerprint, fingerprint
from lossprobe.text.stage import Stage, counted, no_stage

KEPT_TEXT_BYTES = 64 << 20  # a longer text is read and hashed again by every pass
KEPT_TOKEN_BYTES = 256 << 20  # the documents after that are tokenized again by every pass
DOCUMENT_BYTES = 200  # memory of a document beside its text
SPAN_BYTES = 250


@runtime_checkable
class KnownSource(Source, Protocol):
    """A source that knows its sha256 and keeps its tokens."""

    def fingerprint(self) -> str:
        """Return the sha256 that identifies the text."""
        ...

    def tokens(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of one of its documents."""
        ...


class MadeOf:
    """What a source that is made of another one takes over from it.

    Attributes:
        source: the other source.
    """

    source: Source

    @property
    def kind(self) -> DataKind:
        """What its records hold; see `kind_of`."""
        return kind_of(self.source)

    @property
    def templated(self) -> bool | None:
        """Whether a chat template made its texts; see `templated`."""
        return templated(self.source)

    @property
    def skipped(self) -> dict[str, int]:
        """Numbers of bad records and files that were left out; see `skipped_of`."""
        return skipped_of(self.source)


class KnownText(MadeOf):
    """A source with the documents of another source, which it keeps in memory for several passes.

    Args:
        source: the other source.
        tokens: keeps the tokens of the documents for later passes; None if a single pass needs them only once.
    """

    def __init__(self, source: Source, tokens: KeptTokens | None = None) -> None:
        self.name = source.name
        self.notices = source.notices
        self.source = source
        self._tokens = tokens
        self._sha256 = ""
        self._documents: list[Document] | None = None
        self._derived: dict[str, KnownText] = {}

    @property
    def skips_bad(self) -> bool:
        """Whether bad records are left out; see `skips_bad`."""
        return skips_bad(self.source)

    @property
    def sides(self) -> str:
        """Which sides of pairs are documents; see `sides_of`."""
        return sides_of(self.source)

    @property
    def files(self) -> list[Path]:
        """The files of the text; empty for a text in memory."""
        return [file.path for file in getattr(self.source, "files", ())]

    def fingerprint(self, stage: Stage = no_stage) -> str:
        """Return the sha256 of all documents, as `text.fingerprint` does; the text is read only the first time."""
        if not self._sha256:
            running, kept, left = Fingerprint(), [], KEPT_TEXT_BYTES
            for document in counted(self.source.documents(), stage):
                running.add(document)
                left -= sys.getsizeof(document.text) + sys.getsizeof(document.fields) + DOCUMENT_BYTES
                left -= memory_of(document.example) + SPAN_BYTES * len(document.spans)
                if left >= 0:
                    kept.append(document)
                else:
                    kept.clear()
            self._documents = kept if left >= 0 else None
            self._sha256 = running.hexdigest()
        return self._sha256

    def documents(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            TextError: a text too long to keep has changed since it was hashed.
        """
        sha256 = self.fingerprint()
        yield from read_again(self.source, sha256) if self._documents is None else self._documents

    def tokens(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of one of its documents; kept tokens are not computed again."""
        return tokenizer.encode(text) if self._tokens is None else self._tokens.of(text, tokenizer)

    def all_tokens(self, texts: Sequence[str], tokenizer: CopiedTokenizer) -> list[Tokens]:
        """Return the tokens of several of its documents; those that are not kept are made with one request."""
        return tokenizer.encode_all(texts) if self._tokens is None else self._tokens.of_all(texts, tokenizer)

    def derived(self, name: str, make: Callable[[Source], Source]) -> KnownText:
        """Return a text derived from this one, made once for each name; both share the kept tokens."""
        if name not in self._derived:
            self._derived[name] = KnownText(make(self), self._tokens)
        return self._derived[name]


class KeptTokens:
    """Keeps tokens of documents by tokenizer and text, up to `KEPT_TOKEN_BYTES` (13 bytes per token, and the text)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, str, str], Tokens] = {}
        self._left = KEPT_TOKEN_BYTES

    def of(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of a document. Tokenizers that differ only in BOS and EOS share them."""
        key = (*_rules(tokenizer), text)
        tokens = self._kept.get(key)
        return self._keep(key, tokenizer.encode(text)) if tokens is None else tokens

    def of_all(self, texts: Sequence[str], tokenizer: CopiedTokenizer) -> list[Tokens]:
        """Return the tokens of several documents, each as by `of`."""
        rules = _rules(tokenizer)
        missing = list(dict.fromkeys(text for text in texts if (*rules, text) not in self._kept))
        encoded = zip(missing, tokenizer.encode_all(missing) if missing else (), strict=True)
        made = {text: self._keep((*rules, text), tokens) for text, tokens in encoded}
        return [made[text] if text in made else self._kept[(*rules, text)] for text in texts]

    def _keep(self, key: tuple[object, str, str], tokens: Tokens) -> Tokens:
        size = sys.getsizeof(key[-1]) + tokens.ids.nbytes + tokens.byte_stop.nbytes + tokens.unknown.nbytes
        if size <= self._left:
            self._left -= size
            self._kept[key] = tokens
        return tokens


def _rules(tokenizer: object) -> tuple[object, str]:
    """Return what decides the tokens of a text, apart from BOS and EOS."""
    rules = getattr(tokenizer, "canonical", None) or getattr(tokenizer, "sha256", "") or id(tokenizer)
    return rules, getattr(tokenizer, "special_strings", "")


def text_sha256(source: Source, stage: Stage = no_stage) -> str:
    """Return the sha256 of all documents of a source; a source that knows it is not read again.

    `stage` is called now and then with words for how far it is.
    """
    if isinstance(source, KnownText):
        return source.fingerprint(stage)
    return source.fingerprint() if isinstance(source, KnownSource) else fingerprint(source, stage)


def templated(source: Source) -> bool | None:
    """Return whether a chat template made the texts of a source; None for plain text, and before they were made.

    A template alone decides whether a BOS stands before them.
    """
    found: bool | None = getattr(source, "templated", None)
    return found


def kind_of(source: Source) -> DataKind:
    """Return what the records of a text hold; plain text where the source does not say."""
    kind: DataKind = getattr(source, "kind", DataKind.TEXT)
    return kind


def skips_bad(source: Source) -> bool:
    """Return whether bad records of a text are left out and counted, instead of refused."""
    return bool(getattr(source, "skips_bad", False))


def sides_of(source: Source) -> str:
    """Return "both" for a text that holds both sides of each pair, one after the other; else ""."""
    sides: str = getattr(source, "sides", "")
    return sides


def skipped_of(source: Source) -> dict[str, int]:
    """Return the numbers of bad records ("record") and files ("file") that the last reading of a text left out."""
    return dict(getattr(source, "skipped", {}))


def tokens_of(source: Source, document: Document, tokenizer: Tokenizer) -> Tokens:
    """Return the tokens of a document, from the source if it keeps them, with the labels of a rendered document.

    Raises:
        TextError: the document is a record of which no text was made yet.
    """
    text = document.scorable()
    tokens = source.tokens(text, tokenizer) if isinstance(source, KnownSource) else tokenizer.encode(text)
    return _labelled(document, tokens, tokenizer, templated(source))


def tokens_of_all(source: Source, documents: Sequence[Document], tokenizer: Tokenizer) -> list[Tokens]:
    """Return the tokens of several documents, each as by `tokens_of`, with one request where the tokenizer can.

    Raises:
        TextError: one is a record of which no text was made yet.
    """
    own = isinstance(source, KnownSource) and not isinstance(source, KnownText)  # finds tokens in its own way
    if own or len(documents) == 1 or not isinstance(tokenizer, CopiedTokenizer):
        return [tokens_of(source, document, tokenizer) for document in documents]
    texts = [document.scorable() for document in documents]
    found = source.all_tokens(texts, tokenizer) if isinstance(source, KnownText) else tokenizer.encode_all(texts)
    made = templated(source)
    return [_labelled(document, tokens, tokenizer, made) for document, tokens in zip(documents, found, strict=True)]


def _labelled(document: Document, tokens: Tokens, tokenizer: Tokenizer, made: bool | None) -> Tokens:
    """Return the tokens of a document with the labels of a rendered one; `made` as `templated` of its source."""
    if document.spans:
        return label_tokens(tokens, document.spans, tokenizer.special_ids)
    # In a stream of conversations the names of special tokens are not told apart from those that the template writes.
    return replace(tokens, special_strings=0) if made else tokens


def read_again(source: Source, sha256: str, seen: Fingerprint | None = None) -> Iterator[Document]:
    """Yield the documents of a source that was hashed before; a source that knows its sha256 makes this check itself.

    Args:
        source: the source.
        sha256: its hash.
        seen: gets every document before it is yielded.

    Raises:
        TextError: the documents have changed.
    """
    knows = isinstance(source, KnownSource)
    if knows and seen is None:
        yield from source.documents()
        return
    seen = seen or Fingerprint()
    for document in source.documents():
        seen.add(document)
        yield document
    if not knows and seen.hexdigest() != sha256:
        raise TextError("text.changed", f"{source.name}: the text changed while it was read (sha256 differs)")
