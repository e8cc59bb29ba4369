"""Tokenizes the documents of a text, several with one request, and several requests at once where the tokenizer can.

Tokenizing takes most of the time of a plan. Copies of the tokenizer work in processes of their own on the documents
that come next, and the tokens come in the order of the text, so that a plan does not depend on how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from lossprobe.checkpoint.interface import CopiedTokenizer, Tokenizer, Tokens
from lossprobe.passes.known_text import tokens_of, tokens_of_all
from lossprobe.text.documents import Document, Source

SHORT = 4 << 20  # characters of a text that is tokenized before copies of the tokenizer have started
AHEAD = 4 << 20  # characters of the documents that are tokenized before they are needed
TOGETHER = 1 << 17  # characters of the documents of one request
MOST = 512  # of these documents

Tokenized = deque[tuple[Document, Tokens]]


class Tokenizing:
    """Makes the tokens of the documents of a text.

    Args:
        source: the text.
        tokenizer: makes the tokens.
        short: characters that are tokenized before copies of the tokenizer start.
        together: characters of the documents that are tokenized with one request.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, short: int = SHORT, together: int = TOGETHER) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._short = short
        self._together = together
        self._copies: Sequence[Tokenizer] | None = None

    def of(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Tokens]]:
        """Yield documents with their tokens, in order. Several lists of documents are tokenized one after the other.

        Raises:
            LossprobeError: as `known_text.tokens_of`.
        """
        tokenizer = self._tokenizer
        if not isinstance(tokenizer, CopiedTokenizer):
            for document in documents:
                yield document, tokens_of(self._source, document, tokenizer)
            return
        batches = _batches(documents, self._together)
        while self._short > 0:
            batch = next(batches, None)
            if batch is None:
                return
            self._short -= _size(batch)
            yield from _taken(_tokens_of(self._source, batch, tokenizer))
        if self._copies is None:
            self._copies = tokenizer.copies()
        if self._copies:
            yield from _ahead(self._source, batches, [tokenizer, *self._copies])
        else:
            for batch in batches:
                yield from _taken(_tokens_of(self._source, batch, tokenizer))


def _batches(documents: Iterable[Document], together: int) -> Iterator[list[Document]]:
    """Yield documents in lists of about `together` characters; one that is longer comes alone."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        if batch and (size + len(document.text) > together or len(batch) == MOST):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.text)
    if batch:
        yield batch


def _size(batch: Sequence[Document]) -> int:
    return sum(len(document.text) for document in batch)


def _tokens_of(source: Source, batch: Sequence[Document], tokenizer: Tokenizer) -> Tokenized:
    return deque(zip(batch, tokens_of_all(source, batch, tokenizer), strict=True))


def _taken(found: Tokenized) -> Iterator[tuple[Document, Tokens]]:
    """Yield what was found, without keeping it: a document can be large."""
    while found:
        yield found.popleft()


def _ahead(
    source: Source, batches: Iterator[list[Document]], tokenizers: Sequence[Tokenizer]
) -> Iterator[tuple[Document, Tokens]]:
    free: SimpleQueue[Tokenizer] = SimpleQueue()
    for tokenizer in tokenizers:
        free.put(tokenizer)

    def work(batch: list[Document]) -> Tokenized:
        tokenizer = free.get()
        try:
            return _tokens_of(source, batch, tokenizer)
        finally:
            free.put(tokenizer)

    waiting: deque[tuple[int, Future[Tokenized]]] = deque()
    ahead = 0
    pool = ThreadPoolExecutor(len(tokenizers))
    try:
        for batch in batches:
            size = _size(batch)
            waiting.append((size, pool.submit(work, batch)))
            ahead += size
            del batch
            while ahead > AHEAD:
                size, first = waiting.popleft()
                ahead -= size
                yield from _taken(first.result())
        while waiting:
            yield from _taken(waiting.popleft()[1].result())
    finally:
        pool.shutdown(cancel_futures=True)
