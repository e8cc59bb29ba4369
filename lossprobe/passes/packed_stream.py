"""The tokens of a text as one stream, cut into blocks as trainers pack them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from lossprobe.analysis.logged.recipe import Integers, RowSums
from lossprobe.analysis.reconcile.balancing import balancing_of
from lossprobe.analysis.reconcile.feed import Bos, Feed, Packing
from lossprobe.checkpoint.interface import Tokenizer, Tokens
from lossprobe.passes.known_text import KnownText, tokens_of
from lossprobe.run.reader import Run
from lossprobe.text.documents import Document

ROWS_AT_ONCE = 1000  # that datasets.map gives to a packing function: a stream ends after them


class PackedStream:
    """A `Source` whose documents are streams: the tokens of a thousand rows, each tokenized on its own.

    Args:
        source: the rows.
        tokenizer: makes their tokens.
        bos_id: id that the tokenizer puts before each row; None for none.

    Attributes:
        longest: tokens of the longest stream.
    """

    def __init__(self, source: KnownText, tokenizer: Tokenizer, bos_id: int | None) -> None:
        self.name, self.notices, self.kind = source.name, source.notices, source.kind
        self._source, self._tokenizer, self._bos_id = source, tokenizer, bos_id
        self.longest = max(len(self._tokens_of(rows).ids) for rows in _at_once(source))

    @property
    def skipped(self) -> dict[str, int]:
        """Numbers of bad records and files that were left out; see `skipped_of`."""
        return self._source.skipped

    def documents(self) -> Iterator[Document]:
        """Yield the streams."""
        for rows in _at_once(self._source):
            yield replace(rows[0], text="".join(row.text for row in rows), byte_offset=-1, fields=None)

    def fingerprint(self) -> str:
        """Return a sha256 of the text and of how it is packed: the same text has other tokens when it is not."""
        return hashlib.sha256(f"stream {self._source.fingerprint()} {self._bos_id} {ROWS_AT_ONCE}".encode()).hexdigest()

    def tokens(self, text: str, tokenizer: Tokenizer) -> Tokens:
        """Return the tokens of a stream, which are those of its rows one after the other.

        Raises:
            ValueError: no stream has this text.
        """
        for rows in _at_once(self._source):
            if sum(len(row.text) for row in rows) == len(text) and "".join(row.text for row in rows) == text:
                return self._tokens_of(rows, tokenizer)
        raise ValueError("no stream has this text")

    def _tokens_of(self, rows: tuple[Document, ...], tokenizer: Tokenizer | None = None) -> Tokens:
        before = np.array([] if self._bos_id is None else [self._bos_id], np.int32)
        ids, stops, unknown, start = [], [], [], 0
        for row in rows:
            found = tokens_of(self._source, row, tokenizer or self._tokenizer)
            ids += [before, found.ids]
            stops += [np.full(len(before), start), found.byte_stop + start]
            unknown += [np.zeros(len(before), bool), found.unknown]
            start += len(row.text.encode())
        return Tokens(np.concatenate(ids), np.concatenate(stops), np.concatenate(unknown))


def _at_once(source: KnownText) -> Iterator[tuple[Document, ...]]:
    """Yield the documents of a text, a thousand at a time."""
    documents = iter(source.documents())
    while rows := tuple(islice(documents, ROWS_AT_ONCE)):
        yield rows


def packed_feeds(run: Run, block: int, *, eos: bool, usual: bool) -> list[Feed]:
    """Return the blocks of a stream as rows of a trainer: full blocks alone, and with what is left at its end.

    Args:
        run: a run over a `PackedStream`, each window a block.
        block: tokens of a block.
        eos: whether an EOS ends each text.
        usual: whether a trainer would take blocks of this size by itself.
    """
    frame = run.query("""
        SELECT "window", count(*) AS length, coalesce(sum(loss_nats::DOUBLE), 0) AS nats,
               coalesce(sum(uniform_loss_nats::DOUBLE), 0) AS uniform,
               count(*) FILTER (WHERE unscored IS NULL) AS tokens
        FROM tokens GROUP BY "window" ORDER BY "window" """)
    length, tokens = (frame[name].to_numpy(np.int64) for name in ("length", "tokens"))
    zeros = np.zeros(len(frame))
    nats, uniform = (frame[name].to_numpy(np.float64) for name in ("nats", "uniform"))
    rows = RowSums(nats, uniform, zeros, tokens, length, zeros.astype(np.int64))
    feed = Feed(rows=rows, bos=Bos.OWN, eos=eos, packing=Packing.WRAPPED, block=block, usual_block=usual, longest=block)
    full = np.flatnonzero(length == block)
    balancing = balancing_of(run, windows=True)

    def blocks(chosen: Integers, packing: Packing) -> Feed:
        return replace(
            feed, rows=rows.take(chosen), packing=packing, lengths=length[chosen],
            balancing=None if balancing is None else balancing.take(chosen),
        )  # fmt: skip

    wrapped = [blocks(np.flatnonzero(tokens > 0), Packing.WRAPPED)] if eos else []
    return [blocks(full, Packing.STREAM), *wrapped]
