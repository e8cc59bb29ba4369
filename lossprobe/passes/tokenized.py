"""Tokenizes the documents of a text, several at once where the tokenizer can.

Tokenizing takes most of the time of a plan. Copies of the tokenizer work in processes of their own on the documents
that come next, and the tokens come in the order of the text, so that a plan does not depend on how many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from lossprobe.checkpoint.interface import CopiedTokenizer, Tokenizer, Tokens
from lossprobe.passes.known_text import tokens_of
from lossprobe.text.documents import Document, Source

SHORT = 4 << 20  # characters of a text that is tokenized before copies of the tokenizer have started
AHEAD = 4 << 20  # characters of the documents that are tokenized before they are needed
MOST = 256  # of these documents


def tokenized(
    source: Source, documents: Iterable[Document], tokenizer: Tokenizer, short: int = SHORT
) -> Iterator[tuple[Document, Tokens]]:
    """Yield documents with their tokens, in order.

    Args:
        source: the text that they are of.
        documents: the documents.
        tokenizer: makes their tokens.
        short: characters that are tokenized before copies of the tokenizer start.

    Raises:
        LossprobeError: as `known_text.tokens_of`.
    """
    left = iter(documents)
    read = 0
    for document in left:
        yield document, tokens_of(source, document, tokenizer)
        read += len(document.text)
        if read >= short:
            break
    copies = tokenizer.copies() if read >= short and isinstance(tokenizer, CopiedTokenizer) else ()
    if copies:
        yield from _ahead(source, left, [tokenizer, *copies])
    else:
        for document in left:
            yield document, tokens_of(source, document, tokenizer)


def _ahead(
    source: Source, documents: Iterator[Document], tokenizers: Sequence[Tokenizer]
) -> Iterator[tuple[Document, Tokens]]:
    free: SimpleQueue[Tokenizer] = SimpleQueue()
    for tokenizer in tokenizers:
        free.put(tokenizer)

    def work(document: Document) -> Tokens:
        tokenizer = free.get()
        try:
            return tokens_of(source, document, tokenizer)
        finally:
            free.put(tokenizer)

    waiting: deque[tuple[Document, Future[Tokens]]] = deque()
    size = 0
    pool = ThreadPoolExecutor(len(tokenizers))
    try:
        for document in documents:
            waiting.append((document, pool.submit(work, document)))
            size += len(document.text)
            while size > AHEAD or len(waiting) > MOST:
                first, tokens = waiting.popleft()
                size -= len(first.text)
                yield first, tokens.result()
                del tokens  # with its result
        while waiting:
            first, tokens = waiting.popleft()
            yield first, tokens.result()
            del tokens
    finally:
        pool.shutdown(cancel_futures=True)
