"""Documents that end in the middle, and documents with nothing or next to nothing in them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from lossprobe.analysis.defects.cause import Found
from lossprobe.analysis.defects.page import TextPage

CUT, TINY = "truncated", "tiny-document"
FEWEST_DOCUMENTS = 20  # to say how documents end
FINISHED = 0.8  # of the documents end a sentence: then the others are cut
LONG_WORDS = 20  # of a document whose end is judged: a short one may be a heading
TINY_WORDS = 2  # at most
TYPICAL_WORDS = 20  # of the middle document, where small ones are told
# Thai and Lao have no full stop.
UNFINISHED = re.compile(r"([^\W_\u0e00-\u0eff]+['’-]?|[,;:([{«“„‚+&=/\\–—-])\s*\Z")
LAST_BYTES = 400
COUNTED_WORDS = 1000  # of a document, at most
COUNTED_CHARACTERS = 8000  # of a document with other characters than those of ASCII
IDEOGRAPHS = "\u3041-\u30ff\u3400-\u9fff"  # no blanks between them: each counts as a word
UNSPACED = "\u0e00-\u0eff\u0f40-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer: no blanks between words
WORD = re.compile(f"[{IDEOGRAPHS}]|[{UNSPACED}]{{1,5}}|[^\\s\u3000-\u303f\uff01-\uff0f{IDEOGRAPHS}{UNSPACED}]+")


@dataclass(frozen=True)
class _End:
    """How a document ends: number, size in bytes, words, and the bytes of what is unfinished, if anything is."""

    number: int
    size: int
    words: int
    start: int
    detail: str


@dataclass
class Endings:
    """Collects how documents end and how long they are, and then says which stand out.

    Attributes:
        judged: documents whose end was looked at.
    """

    judged: int = 0
    _words: list[int] = field(default_factory=list, repr=False)
    _unfinished: list[_End] = field(default_factory=list, repr=False)
    _small: list[_End] = field(default_factory=list, repr=False)

    def add(self, page: TextPage) -> None:
        """Add a document."""
        count = _words(page)
        self._words.append(count)
        if count <= TINY_WORDS:
            self._small.append(_End(page.number, len(page.data), count, 0, "empty" if count == 0 else "tiny"))
        if count < LONG_WORDS:
            return
        self.judged += 1
        tail = page.data[-LAST_BYTES:].decode("utf-8", "ignore")
        match = UNFINISHED.search(tail)
        if match is not None:
            start = len(page.data) - len(tail[match.start() :].encode())
            detail = "after a word" if match[1][0].isalnum() else "after a mark that goes on"
            self._unfinished.append(_End(page.number, len(page.data), count, start, detail))

    @property
    def can_judge(self) -> bool:
        """Whether nearly all documents end a sentence, so that the others stand out."""
        return self.judged >= FEWEST_DOCUMENTS and 1 - len(self._unfinished) / self.judged >= FINISHED

    @property
    def why_not(self) -> str:
        """Why ends cannot be judged."""
        if self.judged < FEWEST_DOCUMENTS:
            return f"fewer than {FEWEST_DOCUMENTS} documents of {LONG_WORDS} words"
        return f"{len(self._unfinished) / self.judged:.0%} of the documents do not end a sentence"

    def found(self) -> Iterator[tuple[int, Found]]:
        """Yield the documents that are cut, empty or tiny, each with its place."""
        if self.can_judge:
            for end in self._unfinished:
                yield end.number, Found(CUT, end.start, end.size, f"ends {end.detail}")
        usual = statistics.median(self._words) if self._words else 0
        for end in self._small:
            if end.words == 0 or usual >= TYPICAL_WORDS:
                yield end.number, Found(TINY, 0, end.size, end.detail)


def _words(page: TextPage) -> int:
    """Return about how many words the beginning of a document has, also in scripts without blanks."""
    if page.is_ascii:
        return len(page.data.split(None, COUNTED_WORDS))
    return sum(1 for _ in WORD.finditer(page.text[:COUNTED_CHARACTERS]))
