"""One text under two tokenizers, cut wherever both end a token: the finest spans over which losses can be compared.

"ab|cd|e" and "a|bcd|e" have the spans "abcd" and "e". The spans partition the text; under one tokenizer they are its
tokens. Both runs are read in text order, a batch of either at a time, and what stands between two cuts is kept as sums,
so that memory grows with the batch and not with a document.

A token without bytes (a BOS, a prefix blank that is not in the text, a piece that ends where the one before it ended)
belongs to the span that ends where it ends, at the start of a document to the first span. Its loss counts. Where it is
unscored it leaves nothing out, since no byte waits for its loss: this is how bits per byte count elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lossprobe.analysis.rows.clusters import text_numbers
from lossprobe.analysis.rows.paired import Ints
from lossprobe.analysis.stats.resampling import Floats
from lossprobe.errors import NotComparableError
from lossprobe.run.reader import Run
from lossprobe.units import plural, visible

END = int(np.iinfo(np.int64).max)
GUESSED, NO_TOKENS = "spans_are_a_guess", "no_tokens"  # why a whole document is left out


@dataclass(frozen=True)
class SharedText:
    """The documents of two runs of the same text.

    Attributes:
        sizes: int64 [D], UTF-8 bytes of each.
        offsets: int64 [D], place of its first byte when documents are laid end to end with one place between them:
            offset + byte orders all boundaries, and no two documents share one.
        usable: bool [D], whether both runs have tokens of it, with exact spans.
        scored: bool [D], whether it is usable and both runs scored something in it.
        texts: int64 [D], number of its text; copies have the same one.
        left_out: reason → bytes of the documents that are not usable.
        reasons: why tokens are unscored, in either run.
    """

    sizes: Ints
    offsets: Ints
    usable: npt.NDArray[np.bool_]
    scored: npt.NDArray[np.bool_]
    texts: Ints
    left_out: dict[str, int]
    reasons: list[str]


@dataclass(frozen=True)
class Spans:
    """Consecutive spans of the text, n of them.

    Attributes:
        document, start, stop: int64 [n], the document and the bytes in it.
        nats: float64 [2, n], loss of the scored tokens in it, one row per run.
        tokens: int64 [2, n], how many these are.
        unscored: int64 [n], bit k set where `SharedText.reasons[k]` left some of its bytes unscored in either run.
    """

    document: Ints
    start: Ints
    stop: Ints
    nats: Floats
    tokens: Ints
    unscored: Ints


def shared_text(first: Run, second: Run) -> SharedText:
    """Return the documents that two runs of the same text share.

    Raises:
        NotComparableError: the texts differ; the message names the first document whose length does.
    """
    one, other = first.settings.text.sha256, second.settings.text.sha256
    if one is not None and other is not None and one != other:
        raise _different(first, second, f"sha256 {visible(one, 12)} and {visible(other, 12)}")
    frames = [
        run.query("SELECT bytes, tokens, scored_tokens, tiles FROM documents ORDER BY document")
        for run in (first, second)
    ]
    sizes, others = (frame["bytes"].to_numpy(np.int64) for frame in frames)
    if len(sizes) != len(others):
        raise _different(first, second, f"{plural(len(sizes), 'document')} and {plural(len(others), 'document')}")
    if (sizes != others).any():
        at = int((sizes != others).argmax())
        raise _different(first, second, f"document {at} has {plural(int(sizes[at]), 'byte')} and {int(others[at]):,}")
    tiles, tokens, scored = (
        np.logical_and.reduce([frame[name].to_numpy() > 0 for frame in frames])
        for name in ("tiles", "tokens", "scored_tokens")
    )
    usable = tiles & tokens & (sizes > 0)
    left_out = {GUESSED: int(sizes[~tiles].sum()), NO_TOKENS: int(sizes[tiles & ~tokens].sum())}
    why = "SELECT DISTINCT unscored::VARCHAR AS why FROM tokens WHERE unscored IS NOT NULL"
    return SharedText(
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(sizes + 1)])[: len(sizes)],
        usable=usable,
        scored=usable & scored,
        texts=text_numbers(first),
        left_out={reason: size for reason, size in left_out.items() if size},
        reasons=sorted({reason for run in (first, second) for reason in run.query(why)["why"]}),
    )


def cut_spans(first: Run, second: Run, text: SharedText) -> Iterator[Spans]:
    """Yield the spans of the usable documents in text order, in bounded memory.

    Where the stored spans do not tile a document, those yielded have fewer bytes than it.
    """
    sides = [_Side(run, text) for run in (first, second)]
    last = -1  # the cut before
    while (behind := min(sides, key=lambda side: side.reached)).reached < END:
        behind.advance()
        limit = min(side.reached for side in sides)
        stops = in_both(sides[0].ends_below(limit), sides[1].ends_below(limit))
        document = np.searchsorted(text.offsets, stops, side="right") - 1
        inside = stops > text.offsets[document]  # not tokens without bytes at the start of a document
        stops, document = stops[inside], document[inside]
        parts = [side.cut(limit, stops) for side in sides]
        if len(stops):
            starts = np.maximum(np.concatenate([[last], stops[:-1]]), text.offsets[document])
            last = int(stops[-1])
            yield Spans(
                document=document,
                start=starts - text.offsets[document],
                stop=stops - text.offsets[document],
                nats=np.stack([part.nats for part in parts]),
                tokens=np.stack([part.tokens for part in parts]),
                unscored=parts[0].unscored | parts[1].unscored,
            )


def in_both(one: Ints, other: Ints) -> Ints:
    """Return the numbers in both of two ascending arrays, each once.

    >>> in_both(np.array([1, 3, 3, 4, 8]), np.array([0, 3, 3, 8, 9])).tolist()
    [3, 8]
    """
    distinct = one[np.diff(one, prepend=-1) > 0]
    at = np.searchsorted(other, distinct)
    found: Ints = distinct[at < np.searchsorted(other, distinct, side="right")]
    return found


@dataclass(frozen=True)
class _Part:
    """Sums of one run between cuts, all [n]; see `Spans`."""

    nats: Floats
    tokens: Ints
    unscored: Ints


@dataclass
class _Side:
    """The tokens of one run that are still to be cut, and the sums of those since the last cut.

    Attributes:
        reached: where the last token read ends; all that end before it have been read. `END` after the last.
    """

    run: Run
    text: SharedText
    reached: int = -1
    _held: tuple[Ints, Floats, npt.NDArray[np.int8]] = field(init=False, repr=False)
    _open: tuple[float, int, int] = field(default=(0.0, 0, 0), init=False)

    def __post_init__(self) -> None:
        # 0 for a scored token, -1 for an unscored one without bytes, else 1 + the index of the reason
        why = (
            "CASE WHEN unscored IS NULL THEN 0 WHEN byte_stop <= byte_start THEN -1 "
            "ELSE list_position(?::VARCHAR[], unscored) END"
        )
        nats = "CASE WHEN unscored IS NULL THEN loss_nats::DOUBLE ELSE 0 END"
        self._stream = self.run.batches(
            f"SELECT document, byte_stop, {nats} AS nats, ({why})::TINYINT AS why FROM tokens", [self.text.reasons]
        )
        self._held = (np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8))

    def advance(self) -> None:
        """Read one batch more."""
        batch: pa.RecordBatch | None = next((batch for batch in self._stream if batch.num_rows), None)
        if batch is None:
            self.reached = END
            return
        document, stop, nats, why = (
            batch.column(name).to_numpy(zero_copy_only=False) for name in ("document", "byte_stop", "nats", "why")
        )
        ends = self.text.offsets[document] + stop
        self.reached = int(ends[-1])
        usable = self.text.usable[document]
        new = (ends[usable], nats[usable], why[usable])
        self._held = (
            np.concatenate([self._held[0], new[0]]),
            np.concatenate([self._held[1], new[1]]),
            np.concatenate([self._held[2], new[2]]),
        )

    def ends_below(self, limit: int) -> Ints:
        """Return where the held tokens end that end before `limit`."""
        ends = self._held[0]
        return ends[: np.searchsorted(ends, limit)]

    def cut(self, limit: int, stops: Ints) -> _Part:
        """Return the sums up to each of the cuts [n], and fold what stands between the last one and `limit`."""
        count = int(np.searchsorted(self._held[0], limit))
        ends, nats, why = (column[:count] for column in self._held)
        self._held = (self._held[0][count:], self._held[1][count:], self._held[2][count:])
        size = len(stops) + 1
        span = np.searchsorted(stops, ends)
        total = np.bincount(span, nats, size).astype(float)
        tokens = np.bincount(span[why == 0], minlength=size)
        unscored = np.zeros(size, np.int64)
        for code in range(len(self.text.reasons)):
            unscored[span[why == code + 1]] |= 1 << code
        total[0] += self._open[0]
        tokens[0] += self._open[1]
        unscored[0] |= self._open[2]
        self._open = (float(total[-1]), int(tokens[-1]), int(unscored[-1]))
        return _Part(total[:-1], tokens[:-1], unscored[:-1])


def _different(first: Run, second: Run, where: str) -> NotComparableError:
    return NotComparableError(
        "runs.different_text",
        f"{visible(first.name, 80)} and {visible(second.name, 80)} did not score the same text: {where}",
        hint="score both with the same text and options",
    )
