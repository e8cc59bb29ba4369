r"""A long document tokenized in overlapping pieces, with the tokens that it has when it is tokenized whole.

The edges of a piece are artificial: a word is cut, a blank is put before it. How far that reaches, no tokenizer
says. So neighbours overlap, and are joined where both have the same tokens at the same places for some words on
either side; what the left piece has after that place, and the right one before it, is dropped. Where they do not
agree, twice as much text is tokenized at once, in the end all of it: a tokenizer that counts from the start of a
text, or a text that is one endless word, costs what it costs without pieces, and has the same tokens.

What decides a token must lie within an overlap, or show in it. That holds for the merges, scores, marks, patterns
and added tokens of the tokenizers in use, of which the longest added token and the longest word that WordPiece
takes set the least overlap. A tokenizer that counts from the far end of a run (digits, blanks) is safe as well: no
join lies in a stretch without words on either side. It does not hold for a pattern or rewriting rule that looks
for something farther away than a piece, such as a normalizer that removes `<[^>]*>` from a text whose "<" and ">"
are 200,000 characters apart. Such a document can get other tokens here than when it is tokenized whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lossprobe.checkpoint.tokenizers.spans import SPACE_MARK, Integers, byte_offsets

# Where every tokenizer that splits text at all splits it: at white space, ASCII and CJK punctuation.
BREAK = re.compile(r"[\s!-/:-@\[-`{-~\u2010-\u2027\u3000-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20]+")
LONGEST_RUN = 1 << 16  # tokens that are looked at together
PLACES = (0.5, 0.25, 0.75)  # where in an overlap a join is tried


@dataclass(frozen=True)
class Sizes:
    """How a document is cut. Nothing but memory and time may depend on it.

    Attributes:
        piece: bytes from the start of one piece to the start of the next.
        overlap: bytes that a piece shares with the next one.
        words: words between white space and punctuation over which two pieces must agree on either side of a join.
        batch: pieces that are tokenized at once.
    """

    piece: int = 128 << 10
    overlap: int = 4 << 10
    words: int = 16
    batch: int = 2

    def reaching(self, reach: int) -> Sizes:
        """Return sizes for a tokenizer that must see at least `reach` bytes of a text to decide on a token."""
        overlap = max(self.overlap, 4 * reach)
        return replace(self, overlap=overlap, piece=max(self.piece, 2 * overlap))

    def starts(self, size: int) -> range:
        """Return where the pieces of a document of `size` bytes start; a short one is one piece."""
        return range(0, max(1, size - self.overlap), self.piece)


class NotLocal(Exception):
    """More text after a piece changed the tokens far before its end: only the whole document will do."""


class Piece:
    """The tokens of one stretch of a document.

    Args:
        encoding: what `tokenizers` made of it.
        text: its characters.
        start: the byte of the document at which it starts.
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
        """The byte of the document at which it ends."""
        return int(self._byte_at[-1])

    def spans(self, first: int, last: int) -> tuple[Integers, Integers]:
        """Return int64 [N] first byte of each token from `first` up to `last`, and byte after its last.

        A blank that stands for no blank of the text was put there by the tokenizer, and covers nothing.
        """
        offsets = self._offsets(first, last)
        at = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        for index in [index for index, id in enumerate(self.ids[first:last]) if id in self._blanks]:
            start, stop = offsets[index]
            if not self._text[start:stop].replace(SPACE_MARK, " ").isspace():
                at[index, 1] = start
        return self._byte_at[at[:, 0]], self._byte_at[at[:, 1]]

    def first_from(self, byte: int) -> int:
        """Return the first of the last tokens, all of which start at a byte of the document or after it."""
        place = int(np.searchsorted(self._byte_at, byte))
        index = len(self.ids)
        while index and self._encoding.token_to_chars(index - 1)[0] >= place:
            index -= 1
        return index

    def last_until(self, byte: int) -> int:
        """Return the number of the first tokens, all of which end at a byte of the document or before it."""
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
    """Some tokens of a piece, from `first` up to `last`, that are tokens of the document."""

    piece: Piece
    first: int
    last: int

    @property
    def ids(self) -> list[int]:
        """Their ids."""
        return self.piece.ids[self.first : self.last]

    def spans(self) -> tuple[Integers, Integers]:
        """Return their spans, as `Piece.spans` gives them."""
        return self.piece.spans(self.first, self.last)

    def parts(self) -> Iterator[TokenRun]:
        """Yield them in runs of bounded length."""
        for first in range(self.first, self.last, LONGEST_RUN):
            yield TokenRun(self.piece, first, min(first + LONGEST_RUN, self.last))


class Join(NamedTuple):
    """Where two pieces are joined: at token `left` of the one, `right` of the other; they share `agreed` more."""

    left: int
    right: int
    agreed: int


class Splitter:
    """Tokenizes one document in pieces.

    Args:
        encode: gives the tokens of some stretches of the document, from byte to byte.
        data: the document.
        sizes: how it is cut.
    """

    def __init__(
        self, encode: Callable[[Sequence[tuple[int, int]]], list[Piece]], data: bytes | bytearray, sizes: Sizes
    ) -> None:
        self._encode = encode
        self._data = data
        self._sizes = sizes
        starts = sizes.starts(len(data))
        stops = [min(start + sizes.piece + sizes.overlap, len(data)) for start in starts]
        self._starts = [self._character(start) for start in starts]
        self._stops = [self._character(stop) for stop in stops]
        self._ready: dict[int, Piece] = {}

    def runs(self) -> Iterator[TokenRun]:
        """Yield the document's tokens in order.

        Raises:
            NotLocal: they can only be had from the whole document at once; those that were yielded may be wrong.
        """
        left, index, after = self._piece(0), 0, 1  # `left` is made of the pieces from `index` up to `after`
        first = settled = 0  # its tokens from `first` on are used; those before `settled` must never change
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

    def _piece(self, index: int) -> Piece:
        if index not in self._ready:
            stop = min(index + self._sizes.batch, len(self._starts))
            ranges = list(zip(self._starts[index:stop], self._stops[index:stop], strict=True))
            self._ready = dict(zip(range(index, stop), self._encode(ranges), strict=True))
        return self._ready.pop(index)

    def _character(self, byte: int) -> int:
        """Return where the character that a byte lies in starts."""
        while 0 < byte < len(self._data) and self._data[byte] & 0xC0 == 0x80:
            byte -= 1
        return byte


def find_join(left: Piece, right: Piece, data: bytes | bytearray, words: int) -> Join | None:
    """Return where two pieces that overlap agree over at least so many words on either side, or None."""
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
    """Return how many rows are the same in both before the first that is not."""
    count = min(len(one), len(other))
    different = (one[:count] != other[:count]).any(axis=1)
    return int(different.argmax()) if different.any() else count


def _words(data: bytes | bytearray) -> int:
    return sum(1 for word in BREAK.split(data.decode("utf-8", "ignore")) if word)


def _same_until(count: int, one: Piece, other: Piece) -> bool:
    """Return whether the first `count` tokens of two pieces with the same start are the same."""
    if count == 0:
        return True
    ends = (piece.spans(count - 1, count)[1].tolist() for piece in (one, other))
    return one.ids[:count] == other.ids[:count] and next(ends) == next(ends)
