"""What stands in a text more than once: documents that are copies, passages, and lines that many documents share.

Every run of five words is hashed (`word_hashes`). Documents are compared by the runs that they share: that gives their
similarity (Jaccard's) without the error that MinHash would estimate it with, and where the passages lie. A run
counts as a copy of the first place in the text that has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.kept_hashes import KeptHashes, Rows, SeenHashes, seen
from lossprobe.analysis.defects.page import TextPage
from lossprobe.analysis.defects.spans import TextSpans
from lossprobe.analysis.defects.word_hashes import parts_of, runs_of, words_of

COPY, SHARED = "duplicate", "boilerplate"
EXACT = "exact copy of a document"
RUN = 5  # words
PASSAGE_WORDS = 25  # of a passage that stands in the text twice
SHARED_WORDS = 20  # of a passage that several documents share
BYTES_A_WORD = 4  # of a passage, at least: else it is a table of digits, or few words of Chinese
BETWEEN_LINES = 8  # bytes, at most, between two lines of one place
LINE_WORDS, LINE_BYTES = 5, 25  # of a line that several documents share, at least
SEVERAL = 3  # documents
SIMILAR = 0.5  # shared runs of all runs, in near copies
TOGETHER_BYTES = 1 << 20  # of documents that are hashed together
FEWEST_RUNS = 5  # of a document that can be a near copy


@dataclass
class Repeats:
    """Collects documents, and then says what is there more than once."""

    runs: KeptHashes = field(default_factory=KeptHashes)
    lines: KeptHashes = field(default_factory=KeptHashes)
    whole: KeptHashes = field(default_factory=KeptHashes)
    _waiting: list[TextPage] = field(default_factory=list, repr=False)
    _waiting_bytes: int = 0

    def add(self, page: TextPage) -> None:
        """Add a document; they must come in the order of their numbers. Small ones are worked on together."""
        self._waiting.append(page)
        self._waiting_bytes += len(page.data)
        if self._waiting_bytes >= TOGETHER_BYTES:
            self._work()

    def _work(self) -> None:
        """Hash the documents that wait."""
        pages, self._waiting, self._waiting_bytes = self._waiting, [], 0
        data = b"\n".join(page.own for page in pages)
        words = words_of(data)
        if not len(words.hashes):
            return
        begins = np.cumsum([0, *(len(page.data) + 1 for page in pages)])
        page = np.searchsorted(begins, words.starts, "right") - 1
        number = np.array([each.number for each in pages], np.int64)[page]
        starts, stops = words.starts - begins[page], words.stops - begins[page]
        firsts = np.flatnonzero(np.diff(page, prepend=-1))
        ends = np.append(firsts[1:], len(page)) - 1
        size = np.diff(begins)[page[firsts]] - 1
        self.whole.add(Rows(parts_of(words.hashes, firsts), number[firsts], 0 * firsts, size, ends - firsts + 1))
        inside = np.arange(len(page)) - np.repeat(firsts, ends - firsts + 1)
        hashes = runs_of(words.hashes, RUN)
        count = len(hashes)
        runs = Rows(hashes, number[:count], starts[:count], stops[RUN - 1 :], inside[:count])
        self.runs.add(runs.chosen(np.flatnonzero(page[:count] == page[RUN - 1 :])))
        line_ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)
        first = np.flatnonzero(np.diff(np.searchsorted(line_ends, words.starts), prepend=-1))
        last = np.append(first[1:], len(page)) - 1
        lines = Rows(parts_of(words.hashes, first), number[first], starts[first], stops[last], inside[first])
        long = (last - first + 1 >= LINE_WORDS) & (lines.stop - lines.start >= LINE_BYTES)
        self.lines.add(lines.chosen(np.flatnonzero(long)))

    def found(self) -> dict[int, list[Found]]:
        """Return the places of each document that has any; nothing else is told of a document that is a copy."""
        self._work()
        rows, lines = self.runs.rows(), self.lines.rows()
        others = seen(rows)
        places = dict(self._copies(rows, others))
        if places:
            rows, lines = _outside(rows, places), _outside(lines, places)
            others = seen(rows)
        taken: dict[int, TextSpans] = {}
        for document, place in (*_shared_lines(lines, seen(lines)), *_passages(rows, others)):
            spans = taken.setdefault(document, TextSpans())
            if not spans.holds(place.start, place.stop):
                spans.add(place.start, place.stop)
                places.setdefault(document, []).append(place)
        return places

    def _copies(self, rows: Rows, others: SeenHashes) -> Iterator[tuple[int, list[Found]]]:
        """Yield the documents that are copies of earlier ones, each with its place."""
        whole = self.whole.rows()
        first = seen(whole).first
        exact = np.flatnonzero((first < np.arange(len(first))) & (whole.word >= RUN))
        sizes = dict(zip(whole.document.tolist(), whole.stop.tolist(), strict=True))
        of = {int(whole.document[row]): int(whole.document[first[row]]) for row in exact}
        near = {document: other for document, other in _near(rows, others) if document not in of}
        for document, other in sorted({**near, **of}.items()):
            detail = EXACT if document in of else "near copy of a document"
            yield document, [Found(COPY, 0, sizes[document], detail, origin=(other, 0, sizes[other]))]


def _outside(rows: Rows, copies: Iterable[int]) -> Rows:
    """Return the rows of documents that are no copies."""
    return rows.chosen(np.flatnonzero(~np.isin(rows.document, list(copies))))


def _shared_lines(rows: Rows, others: SeenHashes) -> Iterator[tuple[int, Found]]:
    """Yield the lines that several documents have, the first of them too."""
    shared = np.flatnonzero(others.documents >= SEVERAL)
    apart = np.diff(rows.document[shared]) != 0
    apart |= rows.start[shared[1:]] - rows.stop[shared[:-1]] > BETWEEN_LINES
    for lines in np.split(shared, np.flatnonzero(apart) + 1) if len(shared) else []:
        yield _place(rows, others, SHARED, "lines of several documents", int(lines[0]), int(lines[-1]))


def _passages(rows: Rows, others: SeenHashes) -> Iterator[tuple[int, Found]]:
    """Yield passages that several documents share, and then others that stand in the text a second time."""
    wide = others.documents >= SEVERAL
    for first, last in _stretches(rows, wide, SHARED_WORDS):
        yield _place(rows, others, SHARED, "passage of several documents", first, last)
    for first, last in _stretches(rows, others.first < np.arange(len(others.first)), PASSAGE_WORDS):
        yield _place(rows, others, COPY, "passage that stands elsewhere", first, last)


def _stretches(rows: Rows, wanted: npt.NDArray[np.bool_], words: int) -> list[tuple[int, int]]:
    """Return the first and last row of every stretch of so many words whose runs are all wanted."""
    at = np.flatnonzero(wanted)
    if not len(at):
        return []
    # Where only a share of the runs is kept, all kept ones between two rows are wanted.
    ends = np.flatnonzero((np.diff(at) != 1) | (np.diff(rows.document[at]) != 0))
    first, last = at[np.concatenate([[0], ends + 1])], at[np.append(ends, len(at) - 1)]
    long = rows.word[last] + RUN - rows.word[first] >= words
    long &= rows.stop[last] - rows.start[first] >= BYTES_A_WORD * words
    return list(zip(first[long].tolist(), last[long].tolist(), strict=True))


def _place(rows: Rows, others: SeenHashes, cause: str, detail: str, first: int, last: int) -> tuple[int, Found]:
    """Return the place from one row to another, with the first place in the text that has the same."""
    begin, end = int(others.first[first]), int(others.first[last])
    document = int(rows.document[begin])
    stop = int(rows.stop[end]) if rows.document[end] == document and end >= begin else int(rows.stop[begin])
    copied = begin != first
    return int(rows.document[first]), Found(
        cause, int(rows.start[first]), int(rows.stop[last]), detail,
        origin=(document, int(rows.start[begin]), stop) if copied else None,
    )  # fmt: skip


def _near(rows: Rows, others: SeenHashes) -> Iterator[tuple[int, int]]:
    """Yield the documents that share most of their runs with an earlier one, and which that is.

    A run is shared with the first document that has it, and with the last one before: of a copy of a changed copy, some
    runs come from the original, and more from the copy.
    """
    size = np.bincount(rows.document, minlength=1)
    first, last = rows.document[others.first], rows.document[others.previous]
    other_than_first = np.flatnonzero((last < rows.document) & (last != first))
    later = np.flatnonzero(first < rows.document)
    pairs = rows.document[later] * len(size) + first[later]
    pairs = np.concatenate([pairs, rows.document[other_than_first] * len(size) + last[other_than_first]])
    pair, shared = np.unique(pairs, return_counts=True)
    document, other = pair // len(size), pair % len(size)
    similar = shared / (size[document] + size[other] - shared)
    wanted = (similar >= SIMILAR) & (np.minimum(size[document], size[other]) >= FEWEST_RUNS)
    best: dict[int, tuple[float, int]] = {}
    for row in np.flatnonzero(wanted):
        best[int(document[row])] = max(best.get(int(document[row]), (0.0, 0)), (float(similar[row]), -int(other[row])))
    for number, (_, negative) in best.items():
        yield number, -negative
