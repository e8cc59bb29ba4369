"""Plans a scoring pass: the rows and windows of every document, cut into parts that can be scored in any order.

A row is one token of the token table. A part holds everything that its scoring needs, so a killed run can resume from
the stored parts, and workers can score parts in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lossprobe.checkpoint.interface import Tokens
from lossprobe.plan.labels import LabelledTokens, Labels
from lossprobe.plan.windows import Layout, Window, window_end, window_of

SCORED = -1
UNSCORED = (
    "first_token", "special", "unknown", "masked", "window_start", "replaced", "context_only", "tail", "truncated",
)  # fmt: skip
REPLACED = UNSCORED.index("replaced")  # the model sees a BOS instead of this token
PART_ROWS = 32_768
PIECE_ROWS = 65_536  # rows of a long document that are planned at once

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of the token table before scoring; every field is [N]. `run.schema` describes the columns.

    Attributes:
        document, token, token_id, byte_start, byte_stop, window, context: int64.
        unscored: int64, index into `UNSCORED` of the reason why a row is not scored, or `SCORED`.
        own: bool, False for rows that belong to an earlier part and are only context here.
        labels: turn, role and part of each row; None for plain text.
    """

    document: Integers
    token: Integers
    token_id: Integers
    byte_start: Integers
    byte_stop: Integers
    window: Integers
    context: Integers
    unscored: Integers
    own: npt.NDArray[np.bool_]
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.token)

    def take(self, index: slice | npt.NDArray[np.bool_]) -> Rows:
        """Return the rows that an index selects."""
        labels = None if self.labels is None else self.labels[index]
        return Rows(**{name: getattr(self, name)[index] for name in ARRAYS}, labels=labels)

    def own_rows(self) -> Rows:
        """Return the rows that are not only context here."""
        return self if self.own.all() else self.take(self.own)

    def as_context(self) -> Rows:
        """Return the same rows, marked as context only."""
        return replace(self, own=np.zeros(len(self), bool))

    @staticmethod
    def join(pieces: list[Rows]) -> Rows:
        """Return all rows of several pieces, in order; either all or none of them have labels."""
        labels = [piece.labels for piece in pieces if piece.labels is not None]
        joined = Labels.join(labels) if labels else None
        return Rows(**{name: np.concatenate([getattr(p, name) for p in pieces]) for name in ARRAYS}, labels=joined)


ARRAYS = tuple(name for name in Rows.__dataclass_fields__ if name != "labels")


@dataclass(frozen=True)
class WindowPolicy:
    """How a document is cut into windows; part of a run's identity.

    Attributes:
        context: most input tokens of a window.
        stride: new tokens scored by each rolling window after the first; equal to `context` when windows do not
            overlap.
        bos_id: id of the BOS before every document, or None. With `Layout.SECOND_HALF` it also replaces the first token
            of every window.
        score_unknown: score tokens that stand for text outside the vocabulary, instead of leaving them out.
        layout: how windows are laid over a document.
        own_bos_id: id of a second BOS after the first, or None. It is scored like any token, as in lm-eval, whose
            prefix comes before the BOS that the tokenizer adds.
    """

    context: int
    stride: int
    bos_id: int | None = None
    score_unknown: bool = False
    layout: Layout = Layout.ROLLING
    own_bos_id: int | None = None

    def lead(self, tokens: Tokens) -> list[int]:
        """Return the ids put before a document: none, `bos_id`, `own_bos_id` or both.

        `own_bos_id` is omitted where the document itself starts with this id.
        """
        first = [] if self.bos_id is None else [self.bos_id]
        written = len(tokens.ids) > 0 and int(tokens.ids[0]) == self.own_bos_id
        return first if self.own_bos_id is None or written else [*first, self.own_bos_id]

    def window_of(self, token: Integers, tokens: int) -> tuple[Integers, Integers]:
        """Return the window of each token and that window's start; see `plan.windows.window_of`."""
        return window_of(token, self.context, self.stride, self.layout, tokens)


def plan_pieces(
    number: int, tokens: Tokens, policy: WindowPolicy, first_window: int, piece_rows: int = PIECE_ROWS
) -> Iterator[Rows]:
    """Yield the rows of one document, cut between windows into pieces of about `piece_rows` own rows.

    A piece that starts inside a document begins with the earlier rows that its windows need as context. So memory does
    not grow with the length of the document. An empty document without a BOS has no piece.

    Args:
        number: number of the document.
        tokens: the document's tokens.
        policy: how it is cut into windows.
        first_window: number of its first window in the run.
        piece_rows: least number of own rows in a piece, unless the document ends.
    """
    total = row_count(tokens, policy)
    start = context = 0
    while start < total:
        stop = min(window_end(start + piece_rows, policy.context, policy.stride, policy.layout, total), total)
        within = range(start - context, stop)
        rows = _rows(number, tokens, policy, first_window, within)
        if isinstance(tokens, LabelledTokens):
            rows = _labelled(rows, tokens, len(policy.lead(tokens)), within)
        rows.own[:context] = False
        yield rows
        start = stop
        context = start - int(policy.window_of(np.array([start]), total)[1][0]) if start < total else 0


def plan_documents(documents: Iterable[Tokens], policy: WindowPolicy) -> Iterator[Rows]:
    """Yield the rows of several documents in pieces; documents and windows are numbered from 0 over all of them."""
    window = 0
    for number, tokens in enumerate(documents):
        first_window = window
        for rows in plan_pieces(number, tokens, policy, first_window):
            window = int(rows.window[-1]) + 1
            yield rows


def row_count(tokens: Tokens, policy: WindowPolicy) -> int:
    """Return how many rows a document has: its tokens, and each BOS put before them."""
    return len(tokens.ids) + len(policy.lead(tokens))


def _rows(number: int, tokens: Tokens, policy: WindowPolicy, first_window: int, rows: range) -> Rows:
    """Return the rows of one document with indices in `rows`, all marked as own."""
    lead = policy.lead(tokens)
    before = lead[rows.start : rows.stop]
    here = slice(max(rows.start - len(lead), 0), max(rows.stop - len(lead), 0))
    ids = np.concatenate([np.array(before, np.int64), tokens.ids[here].astype(np.int64)])
    stops = np.concatenate([np.zeros(len(before), np.int64), tokens.byte_stop[here]])
    unscored = np.full(len(ids), SCORED)
    if not policy.score_unknown and tokens.unknown.any():
        unscored[len(before) :][tokens.unknown[here]] = UNSCORED.index("unknown")
    token = np.arange(rows.start, rows.stop)
    window, start = policy.window_of(token, row_count(tokens, policy))
    first_byte = tokens.byte_stop[here.start - 1] if here.start else 0
    planned = Rows(
        document=np.full(len(ids), number),
        token=token,
        token_id=ids,
        byte_start=np.concatenate([[first_byte], stops])[:-1],
        byte_stop=stops,
        window=first_window + window,
        context=token - start,
        unscored=unscored,
        own=np.ones(len(ids), bool),
    )
    _leave_out(planned, policy, row_count(tokens, policy))
    if 0 in rows:
        unscored[0] = UNSCORED.index("first_token" if policy.bos_id is None else "special")
    return planned


def _labelled(rows: Rows, tokens: LabelledTokens, lead: int, within: range) -> Rows:
    """Return rows with their labels; those in no scored span are masked, also where they have no loss anyway.

    So the first token of a document counts as a label exactly where a trainer would give it one.

    Args:
        rows: the rows of a document with indices in `within`.
        tokens: the labels of the document's tokens.
        lead: number of tokens put before the document; they are masked with its first token.
        within: the indices.
    """
    masked = np.concatenate([np.repeat(tokens.masked[:1], lead), tokens.masked])[within.start : within.stop]
    rows.unscored[masked & (rows.unscored != REPLACED)] = UNSCORED.index("masked")
    return replace(rows, labels=tokens.labels.after(lead)[within.start : within.stop])


def _leave_out(rows: Rows, policy: WindowPolicy, total: int) -> None:
    """Mark, in place, the rows of a document of `total` rows that the layout does not score."""
    if policy.layout is Layout.FIRST:
        rows.unscored[rows.token > policy.context] = UNSCORED.index("truncated")
    elif policy.layout is Layout.LAST:
        rows.unscored[rows.context == 0] = UNSCORED.index("window_start")
        rows.unscored[rows.token < total - 1 - policy.context] = UNSCORED.index("truncated")
    elif policy.layout is Layout.DISJOINT:
        rows.unscored[rows.context == 0] = UNSCORED.index("window_start")
    elif policy.layout is Layout.SECOND_HALF:
        size = policy.context + 1
        first = rows.context == 0
        rows.unscored[rows.context <= size // 2] = UNSCORED.index("context_only")
        rows.unscored[first] = UNSCORED.index("window_start") if policy.bos_id is None else REPLACED
        rows.unscored[rows.token >= total // size * size] = UNSCORED.index("tail")


def cut_parts(planned: Iterable[Rows], part_rows: int = PART_ROWS) -> Iterator[Rows]:
    """Yield parts of about `part_rows` own rows, cut between windows only.

    A part that starts inside a document begins with the earlier rows that its windows need as context.

    Args:
        planned: pieces of documents from `plan_pieces`, in order.
        part_rows: a part ends with the window in which its own rows reach this number.
    """
    pieces: list[Rows] = []
    size = 0
    for rows in planned:
        # A piece's context is copied only into a part that starts inside it.
        position = len(rows) - int(np.count_nonzero(rows.own))
        while position < len(rows):
            stop = _window_end(rows.window, position + max(1, part_rows - size))
            context = int(rows.context[position]) if size == 0 else 0
            if context:
                pieces.append(rows.take(slice(position - context, position)).as_context())
            pieces.append(rows if stop - position == len(rows) else rows.take(slice(position, stop)))
            size += stop - position
            position = stop
            if size >= part_rows:
                yield Rows.join(pieces)
                pieces, size = [], 0
    if pieces:
        yield Rows.join(pieces)


def _window_end(window: Integers, at_least: int) -> int:
    """Return the smallest position ≥ `at_least` at which a window ends; `window` is the window of each row."""
    if at_least >= len(window):
        return len(window)
    return int(np.searchsorted(window, window[at_least - 1], side="right"))


def windows_of(rows: Rows) -> list[tuple[int, Window]]:
    """Return the windows of a part in which own rows are scored, each after the offset of its document's rows.

    Returns:
        (offset, window) of each window; token t of the window's document is row offset + t of the part.
    """
    return [(offset, window) for offset, window, block in _own_windows(rows) if _is_scored(rows, window, block)]


def unscored_windows_of(rows: Rows) -> list[tuple[int, Window]]:
    """Return the windows, as `windows_of` does, without a scored token that a model may see all the same."""
    truncated = UNSCORED.index("truncated")
    return [
        (offset, window)
        for offset, window, block in _own_windows(rows)
        if not _is_scored(rows, window, block) and (rows.unscored[block] != truncated).any()
    ]


def _own_windows(rows: Rows) -> Iterator[tuple[int, Window, Integers]]:
    """Yield all windows of own rows: offset, window, and the indices of its own rows."""
    own = np.flatnonzero(rows.own)
    edges = np.flatnonzero(np.diff(rows.window[own])) + 1
    for block in np.split(own, edges) if len(own) else ():
        first, last = int(block[0]), int(block[-1])
        start = int(rows.token[first] - rows.context[first])
        window = Window(start, int(rows.token[last]) + 1, max(int(rows.token[first]), start + 1))
        yield first - int(rows.token[first]), window, block


def _is_scored(rows: Rows, window: Window, block: Integers) -> bool:
    return window.stop > window.first_scored and bool((rows.unscored[block] == SCORED).any())
