"""Compare tokens with the text they lie on, and count the bytes of the text that the tokens do not stand for.

A tokenizer may rewrite text (lower case, composed characters), drop it (blanks), or have no token for it. Its character
offsets then say where each token lies. Where the bytes that a token stands for are the bytes at that place, its span is
exact; elsewhere the bytes that differ are counted, so that every rewriting is reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.tokenizers.spans import AlignedSpans, ExactSpans, Integers

LONGEST_PATTERN = 64  # most tokens of a group with unknown ones whose places are searched, by a regular expression


@dataclass(frozen=True)
class Spelling:
    """The text that each id stands for, and the text for which there is no token.

    Attributes:
        pieces: id → the bytes that it stands for.
        others: id → its second spelling, see `spans.other_bytes`.
        added: ids of added tokens; after one of them, as at the start of a text, a tokenizer may put a blank.
        unknown_id: the id for text outside the vocabulary, which stands for any text it covers; -1 without one.
        lost: `Alphabet.lost`: number of bytes of a text that have no token; None where every text has tokens.
        kept: `Alphabet.kept`: which bytes of a text have a token, if no rule rewrites it.
        vanishes: whether text without a token is dropped, and not replaced by the unknown token.
    """

    pieces: Mapping[int, bytes]
    others: Mapping[int, bytes] = field(default_factory=dict)
    added: Collection[int] = ()
    unknown_id: int = -1
    lost: Callable[[str], int] | None = None
    kept: Callable[[str], npt.NDArray[np.bool_]] | None = None
    vanishes: bool = False


@dataclass(frozen=True)
class RewriteCounts:
    """How many bytes of a document its tokens do not stand for.

    Attributes:
        normalized: bytes that were dropped or rewritten, including those that vanished.
        vanished: bytes that have no token in the vocabulary and were dropped.
        tiles: False where the span of some token is a guess.
    """

    normalized: int
    vanished: int
    tiles: bool


class SpelledSpans:
    r"""Computes span widths of tokens that do not spell the document, and counts the bytes that differ.

    Args:
        data: the document, UTF-8.
        spelling: the text that each id stands for.

    >>> spans = SpelledSpans("The Cat".encode(), Spelling({0: b"the", 1: b"cat"}))
    >>> spans.add([0, 1], np.array([0, 4]), np.array([3, 7]))
    >>> spans.finish(), np.frombuffer(spans.widths, np.uint32).tolist()
    (RewriteCounts(normalized=3, vanished=0, tiles=True), [3, 4])
    """

    def __init__(self, data: bytes | bytearray, spelling: Spelling) -> None:
        self._data = bytes(data)
        self._spelling = spelling
        self._aligned = AlignedSpans()
        self._normalized = self._vanished = 0
        self._tiles = True
        self._reached = 0  # end of the text that has been compared
        self._fresh = True  # whether the tokenizer may put a blank here: at the start or after an added token
        self._ids: list[int] = []  # last tokens, whose text later tokens may share
        self._starts = self._stops = np.empty(0, np.int64)

    @property
    def widths(self) -> bytearray:
        """uint32 [N], number of bytes that each token covers; complete after `finish`."""
        return self._aligned.widths

    def add(self, ids: Sequence[int], starts: Integers, stops: Integers) -> None:
        """Add the next tokens: their ids, and their offsets, int64 [N] first byte and byte after the last."""
        self._ids += ids
        self._starts, self._stops = np.append(self._starts, starts), np.append(self._stops, stops)
        reached = np.maximum.accumulate(np.append(self._reached, self._stops))[:-1]
        first = np.flatnonzero(self._starts >= reached)  # a group, whose text no other token shares, starts at each
        if len(first) > 1:
            self._settle(int(first[-1]), first[:-1])

    def finish(self) -> RewriteCounts:
        """Return the counts for the whole document; call it after the last token."""
        if self._ids:
            reached = np.maximum.accumulate(np.append(self._reached, self._stops))[:-1]
            self._settle(len(self._ids), np.union1d(np.flatnonzero(self._starts >= reached), [0]))
        if self._reached < len(self._data):
            self._differ(self._reached, len(self._data), len(self._data) - self._reached)
        _, in_order = self._aligned.finish(len(self._data))
        return RewriteCounts(self._normalized, self._vanished, in_order and self._tiles and not self._vanished)

    def _settle(self, count: int, first: Integers) -> None:
        """Compare the first `count` pending tokens with the text, in groups that start at the indices `first`."""
        ids, self._ids = self._ids[:count], self._ids[count:]
        starts, stops = self._starts[:count].copy(), self._stops[:count].copy()
        self._starts, self._stops = self._starts[count:], self._stops[count:]
        ends = np.maximum.accumulate(np.maximum(stops, self._reached))
        last = np.append(first[1:], count) - 1  # token of each group
        before = np.append(self._reached, ends[last[:-1]])
        gaps = np.maximum(starts[first] - before, 0)
        plain = (first == last) & self._plain(ids, starts, stops)[first]
        if self._spelling.vanishes:
            plain &= gaps == 0  # the text in a gap may have vanished, so it is compared too
        self._normalized += int(gaps[plain].sum())
        for group in np.flatnonzero(~plain).tolist():
            index, after = int(first[group]), int(last[group]) + 1
            self._reached = int(before[group])
            if index:
                self._fresh = ids[index - 1] in self._spelling.added
            found = self._group(ids[index:after], int(starts[index]), int(ends[after - 1]))
            if found is not None:
                starts[index:after], stops[index:after] = found
        self._reached, self._fresh = int(ends[-1]), ids[-1] in self._spelling.added
        self._aligned.add(starts, stops)

    def _plain(self, ids: list[int], starts: Integers, stops: Integers) -> npt.NDArray[np.bool_]:
        """Return bool [N], True where a token stands for exactly the bytes it lies on, or is the unknown token."""
        data, piece_of, unknown = self._data, self._spelling.pieces.get, self._spelling.unknown_id
        places = zip(ids, starts.tolist(), stops.tolist(), strict=True)
        return np.array([piece_of(id) == data[start:stop] or id == unknown for id, start, stop in places], np.bool_)

    def _group(self, ids: list[int], begin: int, end: int) -> tuple[Integers, Integers] | None:
        """Return start and stop of the tokens of a group by their bytes, int64 [N] each.

        Where the bytes do not fit the text, count those that differ and return None.

        Args:
            ids: the tokens of the group.
            begin: start of the stretch of text that their offsets cover; the gap before it is compared too.
            end: end of that stretch.
        """
        before, spelling = self._reached, self._spelling
        pieces = [spelling.pieces.get(index, b"") for index in ids]
        if len(ids) == 1 and spelling.others.get(ids[0]) == self._data[begin:end]:
            pieces = [spelling.others[ids[0]]]
        for start in {before: None, begin: None}:  # the tokens may stand for the gap as well
            stops = self._spelled(ids, pieces, start, end)
            if stops is not None:
                if start > before:
                    self._differ(before, start, start - before)
                return np.append(start, stops[:-1]), stops
        joined = b"".join(pieces)
        gap = begin - before
        count = min(
            gap + differing(self._data[begin:end], joined),
            differing(self._data[before:end], joined),
        )
        self._differ(before, end, max(1, count))
        if spelling.lost is not None and spelling.lost(self._text(before, end)):
            self._tiles = False  # after text without a token the offsets of the library are wrong
        return None

    def _spelled(self, ids: list[int], pieces: list[bytes], start: int, end: int) -> Integers | None:
        """Return the end of each token, int64 [N], if their bytes joined are the stretch of text, or else None."""
        text, joined = self._data[start:end], b"".join(pieces)
        if self._spelling.unknown_id in ids:
            return self._around_unknown(ids, pieces, start, end)
        extra = len(joined) - len(text)
        if joined == text or (self._fresh and extra == 1 and joined == b" " + text):
            lengths = np.cumsum([len(piece) for piece in pieces]) - extra
            stops: Integers = start + np.maximum(lengths, 0)
            return stops
        return None

    def _around_unknown(self, ids: list[int], pieces: list[bytes], start: int, end: int) -> Integers | None:
        """Return what `_spelled` does for tokens with unknown ones among them, which stand for any text."""
        if len(ids) > LONGEST_PATTERN:
            return None
        unknown = self._spelling.unknown_id
        parts = [
            b"(" + (b".+?" if id == unknown else re.escape(piece)) + b")" for id, piece in zip(ids, pieces, strict=True)
        ]
        match = re.compile(b"".join(parts), re.DOTALL).fullmatch(self._data, start, end)
        return None if match is None else np.array([match.end(index + 1) for index in range(len(ids))], np.int64)

    def _differ(self, start: int, stop: int, count: int) -> None:
        """Add `count` bytes that differ in a stretch of text, and those in it that vanished."""
        self._normalized += count
        if self._spelling.vanishes and self._spelling.lost is not None:
            self._vanished += self._spelling.lost(self._text(start, stop))

    def _text(self, start: int, stop: int) -> str:
        return self._data[start:stop].decode("utf-8", "ignore")


def spans_of_the_rest(
    data: bytes | bytearray, ids: Sequence[int], spelling: Spelling
) -> tuple[npt.NDArray[np.uint32], int] | None:
    """Return exact span widths for a document in which some bytes have no token, if its tokens spell all other bytes.

    Args:
        data: the document, UTF-8.
        ids: its tokens.
        spelling: the text that each id stands for.

    Returns:
        Widths, uint32 [N], in which a byte without a token belongs to the token after it, and the number of such bytes;
        None where the tokens do not spell the other bytes.
    """
    if spelling.kept is None:
        return None
    mask = spelling.kept(data.decode())
    if not mask.any():
        return None
    exact = ExactSpans(np.frombuffer(data, np.uint8)[mask].tobytes(), spelling.pieces)
    if not exact.add(ids) or not exact.finish():
        return None
    stops = np.cumsum(np.frombuffer(exact.widths, np.uint32), dtype=np.int64)
    places = np.append(0, np.flatnonzero(mask) + 1)[stops]
    places[-1] = len(data)
    return np.diff(places, prepend=0).astype(np.uint32), int((~mask).sum())


def differing(text: bytes, spelled: bytes) -> int:
    """Return how many bytes of a text differ from the bytes that its tokens stand for.

    Bytes are compared one by one where both have the same length; otherwise all bytes of the text between the common
    start and the common end count.

    >>> differing(b"McDonald", b"mcdonald"), differing(b"a  b", b"a b"), differing(b"ab", b"ab ")
    (2, 1, 0)
    """
    if len(text) == len(spelled):
        return sum(one != other for one, other in zip(text, spelled, strict=True))
    shorter = min(len(text), len(spelled))
    head = next((index for index in range(shorter) if text[index] != spelled[index]), shorter)
    tail = next((index for index in range(shorter - head) if text[-1 - index] != spelled[-1 - index]), shorter - head)
    return len(text) - head - tail
