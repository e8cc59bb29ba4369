r"""Tokenize a long document in overlapping pieces, with the same tokens as if it were tokenized at once.

A piece is a stretch of the document that is tokenized on its own, which bounds the memory. Near its edges tokens can be
wrong, because a word is cut or a blank is put before it, and no tokenizer says how far from the edge that can happen.
So neighbouring pieces overlap. They are joined at a place where both have the same tokens over some words on either
side; the left piece's tokens after that place and the right one's before it are dropped. Where they do not agree, the
left piece is tokenized again with twice as much text, in the end with the whole document. A tokenizer whose tokens
depend on the start of the text, or a text that is one endless word, therefore takes as much memory as without pieces.

The tokens are right if the text that decides a token lies within an overlap, or changes the tokens there. That is so
for merges, scores, marks, patterns and added tokens of the tokenizers in use: the longest added token, and the longest
word that WordPiece accepts, set the smallest overlap. It is also so for rules that count from the end of a run of
digits or blanks, because both sides of a join must hold words. It is not so for a pattern or normalizer that looks
for something farther away than a piece, such as one that removes `<[^>]*>` from a text whose "<" and ">" are 200,000
characters apart. `unbounded_rules` finds such rules, and `Tokens.in_pieces` tells that tokens may differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lossprobe.checkpoint.tokenizers.spans import SPACE_MARK, Integers, byte_offsets

# White space, ASCII and CJK punctuation, at which every tokenizer that has a pre-tokenizer splits a text.
BREAK = re.compile(r"[\s!-/:-@\[-`{-~\u2010-\u2027\u3000-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20]+")
LONGEST_RUN = 1 << 16  # most tokens whose spans are computed together
PLACES = (0.5, 0.25, 0.75)  # shares of an overlap at which a join is tried, in this order


@dataclass(frozen=True)
class Sizes:
    """How a document is cut into pieces. Only memory and time may depend on it, never the tokens.

    Attributes:
        piece: bytes from the start of one piece to the start of the next.
        overlap: bytes that a piece shares with the next one.
        words: number of words on either side of a join over which two pieces must have the same tokens.
        batch: number of pieces that are tokenized in one call.
    """

    piece: int = 128 << 10
    overlap: int = 4 << 10
    words: int = 16
    batch: int = 2

    def with_context(self, context: int) -> Sizes:
        """Return sizes for a tokenizer that may need `context` bytes of text around a place to decide on a token."""
        overlap = max(self.overlap, 4 * context)
        return replace(self, overlap=overlap, piece=max(self.piece, 2 * overlap))

    def starts(self, size: int) -> range:
        """Return the offsets in bytes at which the pieces of a document of `size` bytes start."""
        return range(0, max(1, size - self.overlap), self.piece)


class NotLocal(Exception):
    """Raised where more text after a piece changed tokens far before its end, so that no piece is safe."""


class EncodedPiece:
    """The tokens of one stretch of a document.

    Args:
        encoding: the `tokenizers.Encoding` of its text.
        text: the text of the stretch.
        start: offset of the stretch in the document, in bytes.
        blanks: ids that stand for a single blank.
    """

    def __init__(self, encoding: Any, text: str, start: int, blanks: frozenset[int]) -> None:
        self._encoding = encoding
        self._text = text
        self._blanks = blanks
        self.start = start
        self.ids: list[int] = encoding.ids

    @cached_property
    def _byte_at(self) -> Integers:
        return byte_offsets(self._text) + self.start

    @property
    def stop(self) -> int:
        """Offset in the document at which the stretch ends, in bytes."""
        return int(self._byte_at[-1])

    def spans(self, first: int, last: int) -> tuple[Integers, Integers]:
        """Return start and stop, two int64 [N] of document offsets in bytes, of the tokens `first` to `last` - 1.

        A blank token that lies on no blank of the text was added by the tokenizer and gets an empty span.
        """
        offsets = self._offsets(first, last)
        at = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        for index in [index for index, id in enumerate(self.ids[first:last]) if id in self._blanks]:
            start, stop = offsets[index]
            if not self._text[start:stop].replace(SPACE_MARK, " ").isspace():
                at[index, 1] = start
        return self._byte_at[at[:, 0]], self._byte_at[at[:, 1]]

    def first_from(self, byte: int) -> int:
        """Return the smallest index from which on all tokens start at document offset `byte` or later."""
        place = int(np.searchsorted(self._byte_at, byte))
        index = len(self.ids)
        while index and self._encoding.token_to_chars(index - 1)[0] >= place:
            index -= 1
        return index

    def last_until(self, byte: int) -> int:
        """Return the number of leading tokens that all end at document offset `byte` or earlier."""
        place = int(np.searchsorted(self._byte_at, byte))
        index = 0
        while index < len(self.ids) and self._encoding.token_to_chars(index)[1] <= place:
            index += 1
        return index

    def _offsets(self, first: int, last: int) -> Sequence[tuple[int, int]]:
        if 4 * (last - first) > len(self.ids):
            offsets: list[tuple[int, int]] = self._encoding.offsets[first:last]
            return offsets
        return [self._encoding.token_to_chars(index) for index in range(first, last)]


class TokenRun(NamedTuple):
    """Tokens `first` to `last` - 1 of a piece, which are tokens of the document."""

    piece: EncodedPiece
    first: int
    last: int

    @property
    def ids(self) -> list[int]:
        """Ids of the tokens."""
        return self.piece.ids[self.first : self.last]

    def spans(self) -> tuple[Integers, Integers]:
        """Return start and stop of each token, as `EncodedPiece.spans` does."""
        return self.piece.spans(self.first, self.last)

    def parts(self) -> Iterator[TokenRun]:
        """Yield the same tokens in runs of at most `LONGEST_RUN`."""
        for first in range(self.first, self.last, LONGEST_RUN):
            yield TokenRun(self.piece, first, min(first + LONGEST_RUN, self.last))


class Join(NamedTuple):
    """Where two pieces are joined.

    Attributes:
        left: number of tokens of the left piece that are kept.
        right: index of the first token of the right piece that is kept.
        agreed: number of tokens from there on that both pieces have.
    """

    left: int
    right: int
    agreed: int


class Splitter:
    """Tokenizes one document in pieces.

    Args:
        encode: maps stretches of the document, each (start, stop) in bytes, to their pieces.
        data: the document, UTF-8.
        sizes: how it is cut.
    """

    def __init__(
        self, encode: Callable[[Sequence[tuple[int, int]]], list[EncodedPiece]], data: bytes | bytearray, sizes: Sizes
    ) -> None:
        self._encode = encode
        self._data = data
        self._sizes = sizes
        starts = sizes.starts(len(data))
        stops = [min(start + sizes.piece + sizes.overlap, len(data)) for start in starts]
        self._starts = [self._character(start) for start in starts]
        self._stops = [self._character(stop) for stop in stops]
        self._ready: dict[int, EncodedPiece] = {}

    def runs(self) -> Iterator[TokenRun]:
        """Yield the document's tokens in order.

        Raises:
            NotLocal: the document must be tokenized at once; the tokens that were yielded already may be wrong.
        """
        left, index, after = self._piece(0), 0, 1  # `left` is made of the pieces from `index` up to `after`
        # Tokens of `left` from `first` on are yielded; those before `settled` agreed with the piece before.
        first = settled = 0
        while after < len(self._starts):
            right = self._piece(after)
            join = find_join(left, right, self._data, self._sizes.words)
            if join is None:
                after = min(2 * after - index, len(self._starts))
                (wider,) = self._encode([(left.start, self._stops[after - 1])])
                if not _same_until(settled, left, wider):
                    raise NotLocal
                left = wider
                continue
            yield TokenRun(left, first, join.left)
            left, index, after = right, after, after + 1
            first, settled = join.right, join.right + join.agreed
        yield TokenRun(left, first, len(left.ids))

    def _piece(self, index: int) -> EncodedPiece:
        """Return piece `index`, tokenizing the next `batch` pieces in one call where it is not ready."""
        if index not in self._ready:
            stop = min(index + self._sizes.batch, len(self._starts))
            ranges = list(zip(self._starts[index:stop], self._stops[index:stop], strict=True))
            self._ready = dict(zip(range(index, stop), self._encode(ranges), strict=True))
        return self._ready.pop(index)

    def _character(self, byte: int) -> int:
        """Return the offset at which the character that holds the given byte starts."""
        while 0 < byte < len(self._data) and self._data[byte] & 0xC0 == 0x80:
            byte -= 1
        return byte


def find_join(left: EncodedPiece, right: EncodedPiece, data: bytes | bytearray, words: int) -> Join | None:
    """Return a join of two overlapping pieces, or None where they do not agree.

    Args:
        left: the earlier piece.
        right: the later piece, which starts before `left` stops.
        data: the document, UTF-8.
        words: number of words on either side of the join over which both must have the same tokens.
    """
    begin, end = left.first_from(right.start), right.last_until(left.stop)
    one = np.column_stack([left.ids[begin:], *left.spans(begin, len(left.ids))])
    other = np.column_stack([right.ids[:end], *right.spans(0, end)])
    for share in PLACES:
        place = right.start + int(share * (left.stop - right.start))
        i, j = (int(np.searchsorted(tokens[:, 1], place)) for tokens in (one, other))
        before, after = _agreeing(one[:i][::-1], other[:j][::-1]), _agreeing(one[i:], other[j:])
        if before and after:
            lowest, middle, highest = one[i - before, 1], one[i, 1], one[i + after - 1, 2]
            if min(_words(data[lowest:middle]), _words(data[middle:highest])) >= words:
                return Join(begin + i, j, after)
    return None


def _agreeing(one: Integers, other: Integers) -> int:
    """Return the number of leading rows that are equal in both."""
    count = min(len(one), len(other))
    different = (one[:count] != other[:count]).any(axis=1)
    return int(different.argmax()) if different.any() else count


def _words(data: bytes | bytearray) -> int:
    """Return the number of words between white space and punctuation."""
    return sum(1 for word in BREAK.split(data.decode("utf-8", "ignore")) if word)


def _same_until(count: int, one: EncodedPiece, other: EncodedPiece) -> bool:
    """Return whether two pieces with the same start have the same first `count` tokens."""
    if count == 0:
        return True
    ends = (piece.spans(count - 1, count)[1].tolist() for piece in (one, other))
    return one.ids[:count] == other.ids[:count] and next(ends) == next(ends)
